"""What sizes did llama.cpp print, and in what lines? Its log, whoever wrote it and whatever stands before each line.

Timestamps, levels, colours, journald's prefixes and JSON around a line do not matter. Sizes have a precision of
0.01 MiB.

Source: llama.cpp 0c1e570 src/llama-model.cpp, load_tensors ("model buffer size"); src/llama-kv-cache.cpp ("KV buffer
size"); src/llama-memory-recurrent.cpp ("RS"); src/llama-kv-cache-dsv4.cpp ("DSV4 ... state"); src/llama-context.cpp
("compute", "output"); src/llama-adapter.cpp ("LoRA"); tools/mtmd/clip.cpp, reserve_compute_meta; common/log.cpp.
"""

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import BinaryIO, Final

from ggufphys.frozen import dataclass
from ggufphys.memory.terms import Quantity
from ggufphys.units import parse_json

MIB: Final = 1 << 20
RESOLUTION_BYTES: Final = 0.005 * MIB  # half of the last printed digit

_LINE: Final = re.compile(
    r"(?:(\w+):)?\s+(\S+)\s+(model|KV|RS|DSV4 \S+ state|LoRA|compute|output) buffer size =\s+"
    r"([0-9]{1,12}(?:\.[0-9]{1,6})?) MiB"
)
_QUANTITY: Final[dict[str, Quantity]] = {
    "model": "model", "KV": "context", "RS": "context", "DSV4": "context", "compute": "compute", "output": "output",
    "LoRA": "attachment",
}  # fmt: skip
_IMAGE_ENCODER: Final = ("reserve_compute_meta", "alloc_compute_meta")  # functions whose compute buffer is its own
MAX_LINE_BYTES: Final = 64 << 20  # a request is logged in a line
_COLOUR: Final = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedBuffer:
    """One buffer line: which quantity, which buffer type, what for in the log's words, and the MiB printed."""

    quantity: Quantity
    buffer: str
    what: str
    mib: float


def logged_buffers(lines: Iterable[str]) -> tuple[LoggedBuffer, ...]:
    """The buffer lines of a llama.cpp log, in order."""
    return tuple(buffer for line in lines if (buffer := buffer_line(line)) is not None)


def logged_bytes(buffers: Iterable[LoggedBuffer], quantity: Quantity) -> tuple[int, int] | None:
    """The sum of one quantity's lines in bytes, and how far rounding may be off; None when the log has none."""
    mibs = [b.mib for b in buffers if b.quantity == quantity]
    return (round(sum(mibs) * MIB), round(len(mibs) * RESOLUTION_BYTES)) if mibs else None


def buffer_line(line: str) -> LoggedBuffer | None:
    """What a line says about a buffer; None when it is about something else."""
    match = _LINE.search(line) if "buffer size =" in line else None
    if match is None:
        return None
    function, buffer, what, mib = match.groups()
    if function in _IMAGE_ENCODER:
        return LoggedBuffer(quantity="attachment", buffer=buffer, what="mmproj compute", mib=float(mib))
    return LoggedBuffer(quantity=_QUANTITY[what.split()[0]], buffer=buffer, what=what, mib=float(mib))


def bare_line(line: str) -> str:
    """A line without colours, and out of its wrapping where it is JSON (llama-server --log-jsonl)."""
    if line.startswith("{") and '"msg"' in line:
        with suppress(ValueError, KeyError, TypeError):
            line = str(parse_json(line)["msg"])
    return _COLOUR.sub("", line) if "\x1b" in line else line


def log_lines(file: BinaryIO) -> Iterator[str]:
    """The bare lines of a log file: UTF-8, or the UTF-16 that PowerShell writes; bytes that are neither do no harm."""
    start = file.readline(MAX_LINE_BYTES)
    if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        yield from map(bare_line, (start + file.read()).decode("utf-16", "replace").splitlines())
        return
    line = start
    while line:
        if len(line) == MAX_LINE_BYTES:
            raise ValueError(f"a line of {MAX_LINE_BYTES:,} bytes and more, which no log of llama.cpp has")
        yield bare_line(line.decode("utf-8", "replace"))
        line = file.readline(MAX_LINE_BYTES)
