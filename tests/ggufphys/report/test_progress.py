"""Long work says how far it is; quick work says nothing."""

import io
import time

import pytest

from ggufphys.report.progress import Steps


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


class Clock:
    """Seconds that pass when told."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()], ids=["log", "terminal"])
def test_quick_work_is_silent(stream: io.StringIO) -> None:
    """Nothing is said of work that is done within two seconds."""
    clock = Clock()
    with Steps("reading", total=100, stream=stream, clock=clock) as steps:
        for _ in steps.over(range(100)):
            clock.now_s += 0.019

    assert stream.getvalue() == ""


def test_lines_in_a_log() -> None:
    """Where nobody watches, a line comes after two seconds and then every fifteen, with what is left."""
    stream, clock = io.StringIO(), Clock()
    with Steps("judging", total=40, unit="documents", stream=stream, clock=clock) as steps:
        for _ in range(40):
            clock.now_s += 1
            steps.advance()

    assert stream.getvalue().splitlines() == [
        "judging: 2 of 40 documents, 2 s, about 38 s left",
        "judging: 17 of 40 documents, 17 s, about 23 s left",
        "judging: 32 of 40 documents, 32 s, about 8 s left",
    ]


def test_a_line_on_a_terminal() -> None:
    """On a terminal one line is rewritten, and wiped away in the end."""
    stream, clock = Terminal(), Clock()
    with Steps("running", unit="positions", stream=stream, clock=clock) as steps:
        clock.now_s += 130
        steps.advance(5, now="ffn")

    assert stream.getvalue() == "\r\x1b[Krunning: 5 positions, 2 min 10 s: ffn\r\x1b[K"


def test_long_steps_tick() -> None:
    """A step that takes long by itself is told while it lasts, by what it is."""
    stream, clock = io.StringIO(), Clock()
    with Steps("comparing", unit="tokens", ticks=True, stream=stream, clock=clock) as steps:
        steps.advance(0, now="llama.cpp")
        clock.now_s += 61
        while not stream.getvalue():
            time.sleep(0.01)

    assert stream.getvalue() == "comparing: 1 min 01 s: llama.cpp\n"
