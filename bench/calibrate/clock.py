"""How long does something take on a machine that others use too?

One thread is measured by its processor time: what others take of its core does not count. Several threads wait for each
other, so that only wall seconds are right; a thread that was ready to run and had no processor is counted by the kernel
(Linux), and repetitions in which that happened are left out as long as others remain.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from server.engine.waiting import thread_times, worst_share

MIN_S: Final = 0.003  # of one repetition
BUSY: Final = 0.02  # of its time that a thread had no processor: from there on a repetition does not count
COUNTS: Final = 0.05  # of a model's run: up to there it says something about a prediction
VERY_BUSY: Final = 0.10  # of all repetitions

Sample = tuple[float, float]
"""Seconds, and the share of its time that a thread had no processor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Seconds: the lower quartile of repetitions, what disturbs makes them longer; half the quartiles' distance.

    `busy` is the share of its time that a thread had no processor, in the median of repetitions.
    """

    seconds: float
    spread_s: float
    busy: float


def samples(run: Callable[[], None], n_threads: int, *, repetitions: int, min_s: float = MIN_S) -> list[Sample]:
    """Run it once unmeasured, then often enough for each repetition to last."""
    clock = clock_for(n_threads)
    started = clock()
    run()
    n = max(1, round(min_s / max(clock() - started, 1e-7)))
    found: list[Sample] = []
    for _ in range(repetitions):
        before = thread_times()
        started = clock()
        for _ in range(n):
            run()
        found.append(((clock() - started) / n, worst_share(before, thread_times())))
    return found


def clock_for(n_threads: int) -> Callable[[], float]:
    """Processor time of this thread where it works alone, wall time elsewhere."""
    return time.thread_time if n_threads == 1 else time.perf_counter


def summed(found: Sequence[Sample], n_threads: int = 0) -> Timing:
    """Of undisturbed repetitions; of all where there are none, or where one thread's processor time was taken."""
    calm = sorted(seconds for seconds, share in found if share <= BUSY or n_threads == 1)
    calm = calm or sorted(seconds for seconds, _ in found)
    quarter = len(calm) // 4
    shares = sorted(share for _, share in found)
    return Timing(
        seconds=calm[quarter], spread_s=(calm[-1 - quarter] - calm[quarter]) / 2, busy=shares[len(shares) // 2]
    )
