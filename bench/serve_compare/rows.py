"""What was found: a figure of both servers beside what it should be, and how busy others kept the machine meanwhile."""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Final

import psutil

from bench.serve_compare.servers import Server


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """What `ours` may be: `of_theirs` times theirs, or `most` by itself. `at_least`: no less, else no more."""

    of_theirs: float | None = None
    most: float | None = None
    at_least: bool = False

    def is_met(self, ours: float, ratio: float) -> bool:
        """Whether it is, by what ours has or by its ratio to theirs."""
        found, limit = (ratio, self.of_theirs or 0.0) if self.most is None else (ours, self.most)
        return found >= limit if self.at_least else found <= limit

    def __str__(self) -> str:
        sign = ">=" if self.at_least else "<="
        return f"{sign} {self.most:g}" if self.most is not None else f"{sign} {self.of_theirs:.2f}x"


TOK_PER_S: Final = Bar(of_theirs=1.0, at_least=True)
TOK_PER_S_BUSY: Final = Bar(of_theirs=3.0, at_least=True)
TTFT: Final = Bar(of_theirs=1.05)
GAP: Final = Bar(of_theirs=1 / 3)
PREFIX: Final = Bar(most=1.1)
HEALTH_S: Final = Bar(most=0.25)
NONE: Final = Bar(most=0)
RSS: Final = Bar(most=1.02)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure; `theirs` NaN where they were not asked.

    `rounds`: what each round gave, ours by theirs; empty where there was one. `others`: the share of the machine that
    others took meanwhile, NaN where it does not matter.
    """

    level: str
    figure: str
    ours: float
    theirs: float
    bar: Bar | None = None
    others: float = float("nan")
    rounds: tuple[float, ...] = ()

    @classmethod
    def of(
        cls, level: str, figure: str, found: Sequence[tuple[float, float]], *, bar: Bar | None = None, others: float
    ) -> "Row":
        """Medians of rounds, of which each gave ours and theirs."""
        ours, theirs = (median(column) for column in zip(*found, strict=True))
        rounds = tuple(_ratio(*each) for each in found)
        return cls(level=level, figure=figure, ours=ours, theirs=theirs, bar=bar, others=others, rounds=rounds)

    @property
    def ratio(self) -> float:
        """Ours by theirs; of rounds the median, since the two figures of one were found one right behind the other."""
        return median(self.rounds) if self.rounds else _ratio(self.ours, self.theirs)

    @property
    def spread(self) -> str:
        """The least and the largest ratio of a round; empty where there was one."""
        return f"{min(self.rounds):.2f}-{max(self.rounds):.2f}" if len(self.rounds) > 1 else ""

    @property
    def is_met(self) -> bool:
        """Whether the bar is, if there is one."""
        return self.bar is None or self.bar.is_met(self.ours, self.ratio)

    def __str__(self) -> str:
        bar = f"{self.bar}  {'yes' if self.is_met else 'NO'}" if self.bar else ""
        figures = (f"{self.ours:.4g}", f"{self.theirs:.4g}", f"{self.ratio:.2f}", f"{self.others:.0%}")
        ours, theirs, ratio, others = (text.replace("nan%", "").replace("nan", "") for text in figures)
        line = f"{ours:>10} {theirs:>10} {ratio:>7} {self.spread:>10} {others:>6}"
        return f"{self.level:26} {self.figure:14} {line}  {bar}".rstrip()


HEAD: Final = f"{'':26} {'':14} {'ours':>10} {'theirs':>10} {'ratio':>7} {'rounds':>10} {'others':>6}  bar, met"


def _ratio(ours: float, theirs: float) -> float:
    return ours / theirs if theirs else float("nan")


@dataclass(slots=True)
class Others:
    """The share of the machine's processor time that neither the servers nor this process took."""

    shares: list[float] = field(default_factory=list)

    @property
    def share(self) -> float:
        """The median of what was watched."""
        return median(self.shares) if self.shares else float("nan")

    @contextmanager
    def watched(self, *servers: Server) -> Iterator[None]:
        """Watch while the block runs."""
        processes = [psutil.Process(), *(process for server in servers for process in server.processes)]
        before, ours, began = _busy_s(), sum(map(_cpu_s, processes)), time.perf_counter()
        yield
        available = (time.perf_counter() - began) * (os.cpu_count() or 1)
        others = (_busy_s() - before) - (sum(map(_cpu_s, processes)) - ours)
        self.shares.append(max(0.0, others / available))


def _busy_s() -> float:
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0.0))


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
