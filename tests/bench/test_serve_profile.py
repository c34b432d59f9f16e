"""The profile of served tokens: what it adds up, and what it says of a server."""

import re
import subprocess
import sys
import time

import pytest

from bench.serve_profile import Parts
from ggufphys.embedded import MODEL


class Worker:
    """Does one thing within another, and waits in both."""

    def outer(self) -> int:
        compute(0.02)
        return self.inner() + 1

    def inner(self) -> int:
        compute(0.04)
        time.sleep(0.1)
        return 1


def compute(seconds: float) -> None:
    """Take so much of this thread's processor time."""
    ends = time.thread_time() + seconds
    while time.thread_time() < ends:
        pass


def profile(*arguments: str) -> str:
    command = [sys.executable, "-m", "bench.serve_profile", str(MODEL), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def test_parts_add_up() -> None:
    """What one function computes within another counts once, for the inner one, and waiting for nobody."""
    worker, parts = Worker(), Parts()
    parts.wrap(worker, "outer", "outside")
    parts.wrap(worker, "inner", "inside")

    assert worker.outer() == 2
    assert 0.04 <= parts.seconds["inside"] < 0.1
    assert 0.02 <= parts.seconds["outside"] < parts.seconds["inside"]


def test_loop() -> None:
    """The loop alone is divided into decoding and what lies between."""
    text = profile("--parts", "-c", "2")

    assert re.match(r"the loop, 2 answers, 1\d\d steps", text)
    named = ("llama_decode, this thread's share", "the likeliest token", "handing out", "sending", "plan", "the rest")
    assert all(re.search(rf"  {what} +\d+\.\d+\n", text) for what in named)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="threads' times are /proc's")
def test_server() -> None:
    """Under HTTP load steps, decodes and threads of both processes have times."""
    text = profile("-c", "2", "--port", "18490")

    assert re.search(r"ours, 2 clients: \d+\.\d tokens/s", text)
    assert re.search(r"[1-9]\d+ steps of \d+\.\d\d ms: \d+\.\d\d in llama_decode", text)
    assert {"http, main", "http, others", "worker, main", "worker, others", "client"} <= set(
        re.findall(r"^  ([a-z, ]*[a-z]) +\d+\.\d+ ms a token", text, re.M)
    )
