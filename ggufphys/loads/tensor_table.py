"""Which tensors does an architecture's loader create? `tensors.txt`, parsed.

Expressions are Python's, over hyperparameters by llama.cpp's names. A section is parsed when its architecture is asked
for, and once.
"""

import re
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Final

from ggufphys.frozen import dataclass
from ggufphys.loads.outline import Entry, entries, section

TENSORS: Final = "tensors.txt"
TEMPLATE: Final = "="  # in front of the names of sections that others use


@dataclass(frozen=True, slots=True)
class Row:
    """A tensor that is created: `name` with `*` for the layer, `shape` a tuple of sizes, `flags` if any."""

    name: str
    shape: str
    flags: str


@dataclass(frozen=True, slots=True)
class Let:
    """A name for what follows."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Check:
    """What must be so (`word` is "assert"), or must not ("refuse")."""

    word: str
    value: str


@dataclass(frozen=True, slots=True)
class Branch:
    """Rows that count where `condition` holds, and those that count where it doesn't."""

    condition: str
    then: "tuple[Line, ...]"
    otherwise: "tuple[Line, ...]"


@dataclass(frozen=True, slots=True)
class Each:
    """Rows for each layer from `first` to before `end`."""

    first: str
    end: str
    rows: "tuple[Line, ...]"


Line = Row | Let | Check | Branch | Each


@cache
def rows_of(arch: str) -> tuple[Line, ...] | None:
    """An architecture's rows in llama.cpp's order; None for one that has no loader."""
    lines = section(TENSORS, arch)
    return None if lines is None else tuple(_parse(entries(lines)))


def _parse(found: Iterable[Entry]) -> Iterator[Line]:
    for entry in found:
        word, rest = entry.word, entry.rest
        if word == "if":
            yield Branch(rest, tuple(_parse(entry.below)), tuple(_parse(entry.otherwise)))
        elif word == "each":
            first, _, end = rest.partition(" ")
            yield Each(first, end, tuple(_parse(entry.below)))
        elif word in ("assert", "refuse"):
            yield Check(word, rest)
        elif rest.startswith("= "):
            yield Let(word, rest[2:])
        else:
            yield from _row(entry.line)


def _row(line: str) -> Iterator[Line]:
    name, _, rest = line.partition(": ")
    sizes, _, flags = rest.partition("; ")
    template = None if "." in name else section(TENSORS, TEMPLATE + name)
    if template is None:
        full_name = f"blk.*{name}" if name.startswith(".") else name
        yield Row(full_name, f"({sizes},)", "" if flags == "0" else flags)
        return
    arguments = [f"({size})" if " " in size else size for size in re.split(r", (?![^()]*\))", sizes)]
    yield from _parse(entries([text.format(*arguments, flags=flags or "0") for text in template]))


__all__ = ["Branch", "Check", "Each", "Let", "Line", "Row", "rows_of"]
