"""llama.cpp's log in whole lines."""

import pytest

from server.engine.llama.log import Level, LogCapture


def test_lines_are_put_together() -> None:
    """Pieces without a newline go on the same line; CONT keeps the level of what it continues."""
    log = LogCapture()
    log.receive(Level.INFO, b"loading ")
    log.receive(Level.CONT, b".")
    log.receive(Level.CONT, b".\nnext")
    log.receive(Level.WARN, b"other\n")

    assert [(line.level, line.text) for line in log.since(0)] == [
        (Level.INFO, "loading .."),
        (Level.INFO, "next"),
        (Level.WARN, "other"),
    ]


def test_since() -> None:
    """A mark separates what was said before from what is said after, even when old lines were dropped."""
    log = LogCapture(max_lines=2)
    for n in range(5):
        log.receive(Level.INFO, f"{n}\n".encode())
    mark = log.mark
    log.receive(Level.INFO, b"new\n")

    assert [line.text for line in log.since(mark)] == ["new"]
    assert [line.text for line in log.since(0)] == ["4", "new"]


def test_quote() -> None:
    """Errors are quoted once each; warnings only where there is no error."""
    log = LogCapture()
    log.receive(Level.WARN, b"odd\n")

    assert log.quote(0) == "llama.cpp said: odd"
    log.receive(Level.ERROR, b"bad\nbad\nworse\n")
    assert log.quote(0) == "llama.cpp said: bad | worse"
    assert log.quote(log.mark) == "llama.cpp gave no reason"


def test_silent_unless_verbose(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing reaches stderr unless it is asked for."""
    log = LogCapture()
    log.receive(Level.ERROR, b"quiet\n")

    assert capsys.readouterr() == ("", "")
    log.verbose = True
    log.receive(Level.INFO, b"loud\n")
    assert capsys.readouterr() == ("", "loud\n")


def test_odd_input() -> None:
    """A null text, an unknown level and bytes that are not UTF-8 do no harm."""
    log = LogCapture()
    log.receive(99, b"\xff\n")
    log.receive(Level.INFO, None)

    assert [line.text for line in log.since(0)] == ["\ufffd"]
