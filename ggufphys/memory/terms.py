"""What does a prediction consist of? Terms that add up, each with its formula and source; never a bare number."""

from collections.abc import Iterable
from typing import Final, Literal, get_args

from ggufphys.frozen import dataclass
from ggufphys.params import HOST

Basis = Literal["exact", "estimate", "unsupported", "refused"]
# attachment: buffers beside the model's own (adapters, mmproj, draft model). ceiling: what may be taken later, up to
# that much; in no total. transient: what the process holds while it loads and gives back; in peaks alone.
Quantity = Literal["model", "context", "compute", "output", "attachment", "process", "ceiling", "transient"]
Backing = Literal["anon", "file"]  # as Linux counts resident memory: RssAnon, RssFile
Phase = Literal["library", "weights", "context", "prefill", "decode"]  # as `measure` goes through them
PHASES: Final[tuple[Phase, ...]] = get_args(Phase)


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """One addend: which quantity it belongs to, where its bytes lie, and why there are so many.

    Terms of the process say what backs them, and in which phase they become resident; others leave that None.
    """

    quantity: Quantity
    name: str
    nbytes: int
    buffer: str  # llama.cpp's buffer type: CPU_Mapped, CPU, CPU_REPACK; empty for what no ggml buffer holds
    formula: str
    source: str
    device: str = HOST
    backing: Backing | None = None
    phase: Phase | None = None


def total(terms: Iterable[Term], quantity: Quantity, device: str | None = None) -> int:
    """Bytes of all terms of one quantity, on one device unless that is None."""
    return sum(t.nbytes for t in terms if t.quantity == quantity and device in (None, t.device))
