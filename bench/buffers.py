"""What sizes did llama.cpp itself print? Its log's buffer lines, at their printed precision of 0.01 MiB.

Source: llama.cpp 0c1e570 src/llama-model.cpp, load_tensors ("model buffer size"); src/llama-kv-cache.cpp ("KV buffer
size"); src/llama-memory-recurrent.cpp ("RS buffer size"); src/llama-context.cpp ("compute", "output").
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from ggufphys.memory.terms import Quantity

MIB: Final = 1 << 20
RESOLUTION_BYTES: Final = 0.005 * MIB  # half of the last printed digit
_LINE: Final = re.compile(r"(\S+)\s+(model|KV|RS|compute|output) buffer size =\s+([0-9.]+) MiB")
_QUANTITY: Final[dict[str, Quantity]] = {
    "model": "model",
    "KV": "context",
    "RS": "context",
    "compute": "compute",
    "output": "output",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedBuffer:
    """One buffer line: which quantity, which buffer type, and the MiB printed."""

    quantity: Quantity
    buffer: str
    mib: float


def logged_buffers(lines: Iterable[str]) -> tuple[LoggedBuffer, ...]:
    """The buffer lines of a llama.cpp log, in order."""
    return tuple(
        LoggedBuffer(quantity=_QUANTITY[m[2]], buffer=m[1], mib=float(m[3]))
        for line in lines
        if (m := _LINE.search(line))
    )


def logged_bytes(buffers: Iterable[LoggedBuffer], quantity: Quantity) -> tuple[int, int] | None:
    """The sum of one quantity's lines in bytes, and how far rounding may be off; None when the log has none."""
    mibs = [b.mib for b in buffers if b.quantity == quantity]
    return (round(sum(mibs) * MIB), round(len(mibs) * RESOLUTION_BYTES)) if mibs else None
