"""When llama.cpp's threads spin, and that they can be told."""

import os
import subprocess
import sys

import pytest

from server.engine.llama.waiting import (
    BUSY_SHARE,
    CALM_S,
    PROBE_S,
    REST_S,
    WINDOW_S,
    Policy,
    late_share,
    thread_times,
    worst_share,
)


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
        now = slept(policy, now, 0.4)
        rests.append(round(now - slept_from))
        now += PROBE_S
        assert policy.is_due(now)

    assert rests[:3] == [2, 4, 8]
    assert max(rests) == REST_S[1]


def slept(policy: Policy, now: float, share: float) -> float:
    """When threads that sleep spin again, with that share of their time without a processor."""
    while not policy.spins:
        now += 0.01
        if policy.is_due(now):
            policy.look(now, share)
    return now


def test_quiet_again() -> None:
    """When the machine is quiet again, the next try is kept, and the next rest is short."""
    policy = Policy(0.0)
    policy.look(1.0, 0.5)
    now = slept(policy, 1.0, 0.4)
    assert policy.look(now + PROBE_S, 0.0)
    policy.look(now + 1, 0.5)

    assert slept(policy, now + 1, 0.4) == pytest.approx(now + 1 + REST_S[0], abs=WINDOW_S)


def test_neighbours_that_have_gone() -> None:
    """However long the rest would be, spinning is tried soon after the last neighbour was seen."""
    policy, now = Policy(0.0), PROBE_S
    for _ in range(8):
        policy.look(now, 0.5)
        now = slept(policy, now, 0.4) + PROBE_S
    policy.look(now, 0.5)
    for _ in range(20):
        now += WINDOW_S
        assert not policy.look(now, 0.4)

    assert slept(policy, now, BUSY_SHARE) == pytest.approx(now + CALM_S, abs=2 * WINDOW_S)


def test_worst_share() -> None:
    """Threads that are at work count, by the one that is worst off."""
    before = {"1": (0, 0), "2": (0, 0), "3": (0, 0)}
    now = {"1": (3_000_000, 1_000_000), "2": (4_000_000, 0), "3": (10, 9_000_000), "new": (5_000_000, 5_000_000)}

    assert worst_share(before, now) == 0.25


def test_who_hands_on_is_not_crowded_out() -> None:
    """A thread that ran for a moment waited for those that spin, not for a neighbour; a neighbour's victim counts."""
    before = {"1": (0, 0), "2": (0, 0), "reader": (0, 0)}
    ms = 1_000_000

    assert worst_share(before, {"1": (244 * ms, 8 * ms), "2": (240 * ms, 0), "reader": (2 * ms, 5 * ms)}) == 8 / 252
    assert worst_share(before, {"1": (250 * ms, 0), "2": (60 * ms, 180 * ms), "reader": (2 * ms, 0)}) == 0.75


@pytest.mark.skipif(sys.platform != "linux", reason="libgomp's waiting is switched on Linux alone")
def test_ballast() -> None:
    """Held, there are more OpenMP threads than processors; dropped, they are gone."""
    script = (
        "import os, time\n"
        "from server.engine.llama.library import load_library\n"
        "from server.engine.llama.waiting import Ballast\n"
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
