"""How long does something take on a machine that others use too?

One thread is measured by its processor time: what others take of its core does not count. Several threads wait for each
other, so that only wall seconds are right; a thread that was ready to run and had no processor is counted by the kernel
(Linux), and repetitions in which that happened are left out as long as others remain. What the kernel cannot see is
how fast a core is just now: `bench.calibrate.gauge` stands beside each repetition.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from math import log
from statistics import fmean, median
from typing import Final

from server.engine.llama.waiting import thread_times, worst_share

MIN_S: Final = 0.003  # of one repetition
LEAST_RAN_NS: Final = 50_000  # of a repetition: a thread that others keep waiting runs for little of it
BUSY: Final = 0.02  # of its time that a thread had no processor: from there on a repetition does not count
COUNTS: Final = 0.05  # of a model's run: up to there it says something about a prediction
VERY_BUSY: Final = 0.10  # of all repetitions
INTERRUPTED: Final = 2.5  # times what the gauge takes otherwise: no neighbour on a core costs as much


@dataclass(frozen=True, slots=True)
class Sample:
    """One repetition: seconds, the share of its time that a thread had no processor, the gauge before it and after."""

    seconds: float
    busy: float
    gauge_before_s: float
    gauge_after_s: float

    @property
    def gauge_s(self) -> float:
        """What the gauge took around it."""
        return (self.gauge_before_s + self.gauge_after_s) / 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Seconds: the median of repetitions, and half the quartiles' distance.

    `least_s` is the fastest repetition in which no thread waited for a processor, 0 where there was none; `busy` the
    share of its time that a thread waited, in the median of repetitions.
    """

    seconds: float
    spread_s: float
    least_s: float
    busy: float

    def each_of(self, n: int) -> "Timing":
        """The timing of one of so many nodes that were timed together."""
        return replace(self, seconds=self.seconds / n, spread_s=self.spread_s / n, least_s=self.least_s / n)


def often_enough(run: Callable[[], None], n_threads: int) -> int:
    """How many runs last long enough to be timed. Behind a first one, which touches pages that were never used."""
    clock = clock_for(n_threads)
    run()
    started = clock()
    run()
    return max(1, round(MIN_S / max(clock() - started, 1e-7)))


def sample(run: Callable[[], None], n_threads: int, n: int, look: Callable[[], float]) -> Sample:
    """Time so many runs, with a look at the gauge before and after."""
    clock = clock_for(n_threads)
    before_s = look()
    before = thread_times()
    started = clock()
    for _ in range(n):
        run()
    seconds = (clock() - started) / n
    busy = worst_share(before, thread_times(), least_ran_ns=LEAST_RAN_NS)
    return Sample(seconds, busy, before_s, look())


def clock_for(n_threads: int) -> Callable[[], float]:
    """Processor time of this thread where it works alone, wall time elsewhere."""
    return time.thread_time if n_threads == 1 else time.perf_counter


def calm(found: Sequence[Sample], n_threads: int) -> list[Sample]:
    """Undisturbed repetitions; all where there are none, or where one thread's processor time was taken."""
    return [s for s in found if s.busy <= BUSY or n_threads == 1] or list(found)


def summed(found: Sequence[Sample], n_threads: int = 0, *, gauge_s: float = 0.0, follows: float = 1.0) -> Timing:
    """Of undisturbed repetitions, at the pace at which the gauge takes `gauge_s`, where seconds follow it so closely.

    Without a gauge's seconds they are what they are. A look that was interrupted says nothing of the pace.
    """
    chosen = calm(found, n_threads)
    told = [gauge_s / s.gauge_s if gauge_s > 0 and s.gauge_s <= INTERRUPTED * gauge_s else 1.0 for s in chosen]
    seconds = sorted(s.seconds * pace**follows for s, pace in zip(chosen, told, strict=True))
    quarter = len(seconds) // 4
    return Timing(
        seconds=median(seconds),
        spread_s=(seconds[-1 - quarter] - seconds[quarter]) / 2,
        least_s=seconds[0] if min(s.busy for s in chosen) <= BUSY else 0.0,
        busy=median(s.busy for s in found),
    )


def how_closely(groups: Iterable[Sequence[Sample]]) -> tuple[float, float]:
    """How closely jobs of one sort follow the gauge: the power of its seconds that theirs go with, 0 to 1.

    A kernel that waits for memory suffers less from a neighbour on its core. Of all repetitions of all jobs together,
    each beside the mean of its job's. The first power is the best to tell one repetition's seconds from the looks at
    the gauge beside it: these are moments, so that it is the less the faster the pace changes. The second is free of
    that and tells what another pace for longer does: what both looks have in common is the pace and no moment's chance
    (the one is the other's instrument).
    """
    around = joint = squares = common = 0.0
    for group in groups:
        befores, afters, looks, ys = (
            _beside_mean([log(getattr(s, name)) for s in group])
            for name in ("gauge_before_s", "gauge_after_s", "gauge_s", "seconds")
        )
        around += sum(x * y for x, y in zip(looks, ys, strict=True))
        squares += sum(x * x for x in looks)
        joint += sum((a + b) / 2 * y for a, b, y in zip(befores, afters, ys, strict=True))
        common += sum(a * b for a, b in zip(befores, afters, strict=True))
    return _power(around, squares), _power(joint, common)


def _beside_mean(values: Sequence[float]) -> list[float]:
    middle = fmean(values)
    return [value - middle for value in values]


def _power(products: float, squares: float) -> float:
    return min(1.0, max(0.0, products / squares)) if squares > 0 else 1.0
