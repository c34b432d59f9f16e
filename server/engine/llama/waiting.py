"""How long do llama.cpp's threads spin before they sleep, waiting for each other? As is right on this machine now.

A decode step has hundreds of barriers. Asleep, each costs a trip through the kernel; spinning, a thread burns the core
that the one it waits for may need. On a quiet machine spinning is several times faster, on a busy one sleeping
(docs/serving.md has the figures, `python -m bench.waiting` measures them again). llama-cpp-python is built with OpenMP,
where ggml's own thread pool and its `poll` have no effect (ggml-cpu.c, ggml_graph_compute): it is libgomp that waits.

libgomp spins for GOMP_SPINCOUNT turns and then sleeps; but only for 1,000, some 50 µs, with OMP_WAIT_POLICY=active,
while there are more OpenMP threads than processors. That is enough for most barriers, and little for a neighbour. So
`Ballast`, OpenMP threads that sleep for ever, switches it to that at any time, and letting them go switches back. How
busy the machine is, the kernel counts: for how long each of our threads was ready to run and had no processor
(/proc/self/task/*/schedstat). While it is, they ask for short time slices, so that one that is woken needn't wait for a
neighbour's to end (`slices.py`).

Linux with libgomp alone; elsewhere nothing is done.
"""

import ctypes
import os
import threading
import time
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Any, Final

from server.engine.llama.slices import SHORT_NS, USUAL_NS, ask

TASKS: Final = "/proc/{}/task"
MAPS: Final = Path("/proc/self/maps")
# Of its time that a thread waits for a processor. While it spins that is 0.28 beside a neighbour who is busy half of
# the time, where spinning is the faster way, and 0.36 beside one who always is, where crowds gain by resting
# (docs/serving.md).
BUSY_SHARE: Final = 0.35
WINDOW_S: Final = 0.25  # between two looks
PROBE_S: Final = 0.05  # of spinning after which a first look is taken
REST_S: Final = (2.0, 64.0)  # of sleeping before spinning is tried again: at first, and at most after failures
CALM_S: Final = 1.0  # with less than that while they sleep, after which spinning is tried again at once
MIN_RUN_NS: Final = 1_000_000  # a thread that ran less in a window says nothing
TEAM_SHARE: Final = 0.5  # of the time for which the busiest wanted a processor: who did for less isn't one of a team

Times = dict[str, tuple[int, int]]
"""Thread to nanoseconds that it ran, and that it waited for a processor."""


class Policy:
    """When to spin: while it does not cost others' processors. Knows no clock and no system.

    Given up, it is tried again when neighbours seem to have gone, and now and then in any case. `look` is called with
    the time and gives whether to spin from now on.
    """

    def __init__(self, now: float) -> None:
        self.spins = True
        self._rest_s = REST_S[0]
        self._next_at = now + PROBE_S
        self._rests_until = self._crowded_at = now

    def is_due(self, now: float) -> bool:
        """Whether it is time to look."""
        return now >= self._next_at

    def look(self, now: float, share: float) -> bool:
        """Decide, given the share of its time that the worst-off thread had no processor since the last look."""
        self._next_at = now + WINDOW_S
        if not self.spins:
            if share > BUSY_SHARE:
                self._crowded_at = now
            if now >= self._rests_until or now - self._crowded_at >= CALM_S:
                self.spins, self._next_at = True, now + PROBE_S
        elif share > BUSY_SHARE:
            self.spins, self._crowded_at, self._rests_until = False, now, now + self._rest_s
            self._rest_s = min(2 * self._rest_s, REST_S[1])
        else:
            self._rest_s = REST_S[0]
        return self.spins


class Waiting:
    """Switches between spinning and sleeping; `after_step` is called by the thread that decodes. Close it."""

    def __init__(self) -> None:
        self._ballast = Ballast()
        self._policy = Policy(time.monotonic())
        self._slice_ns = USUAL_NS
        self._times = thread_times()
        self.is_active = self._ballast.exists and bool(self._times) and "GOMP_SPINCOUNT" in os.environ
        if self._ballast.exists and not self.is_active and "GOMP_SPINCOUNT" in os.environ:
            self._ballast.hold()  # nothing tells how busy the machine is: as if it were

    @property
    def spins(self) -> bool:
        """Whether threads spin now."""
        return self.is_active and self._policy.spins

    def after_step(self) -> None:
        """Look whether it is time to look, and switch."""
        if not self.is_active:
            return
        now = time.monotonic()
        if not self._policy.is_due(now):
            return
        before, self._times = self._times, thread_times()
        if self._policy.look(now, worst_share(before, self._times)):
            self._ballast.drop()
            self._ask(USUAL_NS)
        else:
            self._ballast.hold()
            self._ask(SHORT_NS)

    def _ask(self, slice_ns: int) -> None:
        """Ask for time slices of all threads that there are; later ones take them over."""
        if slice_ns != self._slice_ns:
            self._slice_ns = slice_ns
            for thread in self._times:
                ask(slice_ns, int(thread))

    def crowd(self) -> None:
        """Be as on a busy machine from now on, whatever it is."""
        self.is_active = False
        self._ballast.hold()
        self._ask(SHORT_NS)

    def close(self) -> None:
        """Let the ballast go."""
        self._ballast.drop()


class Ballast:
    """More OpenMP threads than there are processors, asleep, while it is held."""

    def __init__(self) -> None:
        self._gomp = _loaded_libgomp()
        self._release: threading.Event | None = None
        self._thread: threading.Thread | None = None

    @property
    def exists(self) -> bool:
        """Whether this process waits by libgomp."""
        return self._gomp is not None

    def hold(self) -> None:
        """Make the threads; does nothing if they are there."""
        if self._thread is None and self._gomp is not None:
            self._release, there = threading.Event(), threading.Event()
            self._thread = threading.Thread(
                target=self._keep, args=(self._gomp, there, self._release), name="ballast", daemon=True
            )
            self._thread.start()
            there.wait()

    @staticmethod
    def _keep(gomp: Any, there: threading.Event, release: threading.Event) -> None:
        # A team that calls free(NULL), which does nothing. Its threads wait for this one's next team until it ends.
        nothing = ctypes.cast(ctypes.CDLL(None).free, ctypes.c_void_p)
        gomp.GOMP_parallel(nothing, None, ctypes.c_uint((os.cpu_count() or 1) + 1), ctypes.c_uint(0))
        there.set()
        release.wait()

    def drop(self) -> None:
        """End the threads; does nothing if there are none."""
        if self._thread is not None and self._release is not None:
            self._release.set()
            self._thread.join()
            self._thread = self._release = None


def thread_times(pid: int | None = None) -> Times:
    """What the kernel counts of a process's threads (default: ours); empty where it doesn't."""
    times = {}
    try:  # not by Path, which takes twice as long as the kernel
        with os.scandir(TASKS.format("self" if pid is None else pid)) as tasks:
            for task in tasks:
                with suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
                    times[task.name] = _ran_and_waited(f"{task.path}/schedstat")
    except (OSError, ValueError):
        return {}
    return times


def _ran_and_waited(path: str) -> tuple[int, int]:
    """The first two numbers of a thread's schedstat, in nanoseconds."""
    with FileIO(path) as file:
        ran, waited, _ = file.read().split()
    return int(ran), int(waited)


def worst_share(before: Times, now: Times, *, least_ran_ns: int = MIN_RUN_NS) -> float:
    """The largest share of its time that a thread of those that compute had no processor.

    These wanted one for about as long as each other. Others of the process, which hand on what came in a millisecond
    now and then, wait for the spinning ones, and tell nothing of neighbours.
    """
    spent = [(ran - before[task][0], late - before[task][1]) for task, (ran, late) in now.items() if task in before]
    wanted = [(ran + late, late) for ran, late in spent if ran >= least_ran_ns]
    least_ns = TEAM_SHARE * max(wanted, default=(0, 0))[0]
    return max((late / ns for ns, late in wanted if ns >= least_ns), default=0.0)


def late_share(times: Times) -> float:
    """The largest share of its time that a thread has had no processor since it began."""
    return worst_share(dict.fromkeys(times, (0, 0)), times)


def _loaded_libgomp() -> Any:
    """The libgomp that this process has loaded already, whatever it is called; None: there is none."""
    try:
        lines = MAPS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    paths = {line.split(maxsplit=5)[5] for line in lines if "libgomp" in line and len(line.split(maxsplit=5)) == 6}
    return ctypes.CDLL(paths.pop()) if len(paths) == 1 else None
