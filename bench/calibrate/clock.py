"""How long does something take on a machine that others use too?

Wall seconds are what counts, and only they are right where several threads wait for each other. A thread that was
ready to run and had no processor is counted by the kernel (Linux): measurements in which that happened are left out as
long as others remain, and its share is told.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from server.engine.waiting import Times, thread_times, worst_share

REPETITIONS: Final = 5
MIN_S: Final = 0.003  # of one repetition
BUSY: Final = 0.02  # of its time that a thread had no processor: from there on a repetition does not count
VERY_BUSY: Final = 0.10  # of all repetitions


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Seconds: the median of repetitions, and how far they spread (half the distance of the quartiles).

    `busy` is the share of its time that a thread had no processor, at worst, in all repetitions.
    """

    seconds: float
    spread_s: float
    busy: float


def timed(run: Callable[[], None], *, repetitions: int = REPETITIONS, min_s: float = MIN_S) -> Timing:
    """Run it once unmeasured, then often enough for each repetition to last."""
    started = time.perf_counter()
    run()
    once_s = time.perf_counter() - started
    n = max(1, round(min_s / max(once_s, 1e-7)))
    found: list[tuple[float, float]] = []
    first = thread_times()
    for _ in range(repetitions):
        before = thread_times()
        started = time.perf_counter()
        for _ in range(n):
            run()
        found.append(((time.perf_counter() - started) / n, worst_share(before, thread_times())))
    return summed(found, worst_share(first, thread_times()))


def summed(found: Sequence[tuple[float, float]], busy: float) -> Timing:
    """The median of undisturbed repetitions; where there are none, of the quicker half."""
    calm = sorted(seconds for seconds, share in found if share <= BUSY)
    calm = calm or sorted(seconds for seconds, _ in found)[: max(1, len(found) // 2)]
    quarter = len(calm) // 4
    return Timing(seconds=calm[len(calm) // 2], spread_s=(calm[-1 - quarter] - calm[quarter]) / 2, busy=busy)


__all__ = ["BUSY", "VERY_BUSY", "Times", "Timing", "summed", "timed"]
