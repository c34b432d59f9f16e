"""When llama.cpp's threads spin, and that they can be told."""

import os
import subprocess
import sys

import pytest

from server.engine.waiting import PROBE_S, REST_S, WINDOW_S, Policy, late_share, thread_times, worst_share


def test_quiet() -> None:
    """Where no thread waits for a processor, spinning goes on."""
    policy, now = Policy(0.0), 0.0
    for _ in range(10):
        now += WINDOW_S
        assert policy.look(now, 0.01)


def test_busy() -> None:
    """Where threads wait for processors, they sleep, try spinning again briefly, and rest longer each time."""
    policy, now = Policy(0.0), PROBE_S
    rests = []
    for _ in range(8):
        assert not policy.look(now, 0.5)
        slept_from = now
        while not policy.is_due(now):
            now += 0.5
        rests.append(round(now - slept_from))
        assert policy.look(now, 0.5)  # tried again, whatever was counted while asleep
        now += PROBE_S
        assert policy.is_due(now)

    assert rests[:3] == [2, 4, 8]
    assert max(rests) == REST_S[1]


def test_quiet_again() -> None:
    """When the machine is quiet again, the next try is kept, and the next rest is short."""
    policy = Policy(0.0)
    policy.look(1.0, 0.5)
    policy.look(3.0, 0.0)
    assert policy.look(3.1, 0.0)
    policy.look(4.0, 0.5)

    assert policy.is_due(6.0)


def test_worst_share() -> None:
    """Threads that are at work count, by the one that is worst off."""
    before = {"1": (0, 0), "2": (0, 0), "3": (0, 0)}
    now = {"1": (3_000_000, 1_000_000), "2": (4_000_000, 0), "3": (10, 9_000_000), "new": (5_000_000, 5_000_000)}

    assert worst_share(before, now) == 0.25


@pytest.mark.skipif(sys.platform != "linux", reason="libgomp's waiting is switched on Linux alone")
def test_ballast() -> None:
    """Held, there are more OpenMP threads than processors; dropped, they are gone."""
    script = (
        "import os, time\n"
        "from server.engine.library import load_library\n"
        "from server.engine.waiting import Ballast\n"
        "load_library()\n"
        "n = lambda: len(os.listdir('/proc/self/task'))\n"
        "before, ballast = n(), Ballast()\n"
        "ballast.hold(); held = n(); ballast.hold(); ballast.drop()\n"
        "deadline = time.monotonic() + 20\n"
        "while n() > before and time.monotonic() < deadline: time.sleep(0.01)\n"
        "print(ballast.exists, held - before - 1, n() - before)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    exists, n_held, n_left = done.stdout.split()

    if exists == "True":  # or llama.cpp is built without OpenMP, or with another one
        assert int(n_held) >= (os.cpu_count() or 1)
    assert n_left == "0"


def test_late_since_it_began() -> None:
    """Of all its time the share that a thread had no processor; one that hardly ran says nothing."""
    assert late_share({"1": (9_000_000, 1_000_000), "2": (10_000, 5_000_000)}) == 0.1
    assert late_share({}) == 0.0


@pytest.mark.skipif(sys.platform != "linux", reason="what Linux counts")
def test_threads_of_another_process() -> None:
    """A process's threads are counted by its number, and nothing is where there is none."""
    assert str(os.getpid()) in thread_times(os.getpid())
    assert thread_times(1 << 30) == {}
