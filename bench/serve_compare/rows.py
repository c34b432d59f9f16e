"""What was found: a figure of both servers beside what it should be, and how busy others kept the machine meanwhile."""

import os
import time
from collections.abc import Callable, Iterator
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

    def is_met(self, ours: float, theirs: float) -> bool:
        """Whether it is."""
        limit = self.most if self.most is not None else (self.of_theirs or 0.0) * theirs
        return ours >= limit if self.at_least else ours <= limit

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

    `others`: the share of the machine that others took meanwhile, NaN where it does not matter.
    """

    level: str
    figure: str
    ours: float
    theirs: float
    bar: Bar | None = None
    others: float = float("nan")

    @property
    def ratio(self) -> float:
        """Ours by theirs."""
        return self.ours / self.theirs if self.theirs else float("nan")

    @property
    def is_met(self) -> bool:
        """Whether the bar is, if there is one."""
        return self.bar is None or self.bar.is_met(self.ours, self.theirs)

    def __str__(self) -> str:
        bar = f"{self.bar}  {'yes' if self.is_met else 'NO'}" if self.bar else ""
        figures = (f"{self.ours:.4g}", f"{self.theirs:.4g}", f"{self.ratio:.2f}", f"{self.others:.0%}")
        ours, theirs, ratio, others = (text.replace("nan%", "").replace("nan", "") for text in figures)
        return f"{self.level:26} {self.figure:14} {ours:>10} {theirs:>10} {ratio:>7} {others:>6}  {bar}".rstrip()


HEAD: Final = f"{'':26} {'':14} {'ours':>10} {'theirs':>10} {'ratio':>7} {'others':>6}  bar, met"


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


def medians(rounds: int, servers: tuple[Server, Server], one: Callable[[Server, int], float], others: Others) -> tuple[
    float, float
]:  # fmt: skip
    """The median of each server's rounds, which are interleaved: who is first alternates."""
    found: dict[str, list[float]] = {server.name: [] for server in servers}
    for number in range(rounds):
        for server in servers if number % 2 == 0 else reversed(servers):
            with others.watched(*servers):
                found[server.name].append(one(server, number))
    ours, theirs = (median(found[server.name]) for server in servers)
    return ours, theirs
