"""How much does the process hold in each phase, of which kind, and at its peak? Sums of terms, nothing more.

What is resident stays resident: a phase holds the terms of all phases up to it. What loading holds for a moment counts
in that phase's peak alone.
"""

from collections.abc import Iterable

from ggufphys.frozen import dataclass
from ggufphys.memory.terms import PHASES, Backing, Phase, Quantity, Term
from ggufphys.params import HOST


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessPhase:
    """The end of one phase, as Linux counts: RssAnon, RssFile, and VmHWM, the most that was resident so far.

    `needed_bytes` is the most so far that could not have been given back: all but pages that are mapped only while the
    model loads, which the kernel drops when it wants them.
    """

    name: Phase
    anon_bytes: int
    file_bytes: int
    peak_bytes: int
    needed_bytes: int

    @property
    def rss_bytes(self) -> int:
        """All that is resident at the end."""
        return self.anon_bytes + self.file_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessMemory:
    """The process in main memory by phase, and what it has on devices besides.

    `locked_bytes` are those of its resident bytes that a load mode with mlock keeps there.
    """

    phases: tuple[ProcessPhase, ...]
    device_bytes: int
    locked_bytes: int

    @property
    def anon_bytes(self) -> int:
        """Anonymous memory in steady decode: RssAnon."""
        return self.phases[-1].anon_bytes

    @property
    def file_bytes(self) -> int:
        """File-backed memory in steady decode: RssFile."""
        return self.phases[-1].file_bytes

    @property
    def peak_bytes(self) -> int:
        """The most that is ever resident: VmHWM."""
        return self.phases[-1].peak_bytes

    @property
    def needed_bytes(self) -> int:
        """The most that is ever resident and can't be given back: what main memory must hold."""
        return self.phases[-1].needed_bytes

    def phase(self, name: Phase) -> ProcessPhase:
        """The phase of that name."""
        return self.phases[PHASES.index(name)]


def process_memory(terms: Iterable[Term], *, use_mlock: bool) -> ProcessMemory:
    """What the terms of a prediction say about the process."""
    terms = tuple(terms)
    phases: list[ProcessPhase] = []
    resident: dict[Backing, int] = {"anon": 0, "file": 0}
    peak = needed = 0
    for name in PHASES:
        for backing in resident:
            resident[backing] += _sum(terms, "process", name, backing)
        anon, file = resident["anon"], resident["file"]
        passing = _sum(terms, "transient", name, "anon")
        peak = max(peak, anon + file + passing + _sum(terms, "transient", name, "file"))
        needed = max(needed, anon + file + passing)
        phases.append(ProcessPhase(name=name, anon_bytes=anon, file_bytes=file, peak_bytes=peak, needed_bytes=needed))
    weights = (t for t in terms if t.quantity == "model" and t.device == HOST and t.buffer in ("CPU", "CPU_Mapped"))
    return ProcessMemory(
        phases=tuple(phases),
        device_bytes=sum(t.nbytes for t in terms if t.device != HOST and t.quantity not in ("process", "ceiling")),
        locked_bytes=sum(t.nbytes for t in weights) if use_mlock else 0,
    )


def _sum(terms: tuple[Term, ...], quantity: Quantity, phase: Phase, backing: Backing) -> int:
    return sum(t.nbytes for t in terms if t.quantity == quantity and t.phase == phase and t.backing == backing)
