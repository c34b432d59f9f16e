"""How are the tables of loaders written? As sections of lines, some of which stand below others.

A heading names the architectures that share a section: `[qwen2 dream]`. Lines that start with `#` are comments.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

from ggufphys.frozen import dataclass


@dataclass(frozen=True, slots=True)
class Entry:
    """A line, its first `word` and the `rest`, with the lines below it and those below the `else` behind it."""

    line: str
    below: "tuple[Entry, ...]"
    otherwise: "tuple[Entry, ...]"

    @property
    def word(self) -> str:
        """The line up to its first space."""
        return self.line.partition(" ")[0]

    @property
    def rest(self) -> str:
        """The line behind its first space."""
        return self.line.partition(" ")[2]


def section(table: str, name: str) -> Sequence[str] | None:
    """The lines of a table below the heading that has this name; None if none has."""
    text = _sections(table).get(name)
    return None if text is None else [line for line in text.splitlines() if line and not line.startswith("#")]


def headings(table: str) -> tuple[str, ...]:
    """Every name that has a section, in order."""
    return tuple(_sections(table))


def entries(lines: Sequence[str]) -> Iterator[Entry]:
    """Lines as they stand below each other."""
    at = 0
    while at < len(lines):
        line = lines[at].strip()
        below, at = _below(lines, at)
        otherwise: Sequence[str] = ()
        if below and at < len(lines) and lines[at].strip() == "else":
            otherwise, at = _below(lines, at)
        yield Entry(line, tuple(entries(below)), tuple(entries(otherwise)))


def _below(lines: Sequence[str], at: int) -> tuple[Sequence[str], int]:
    """The lines that stand further in than the one at `at`, behind it, and where they end."""
    end = at + 1
    while end < len(lines) and _indent(lines[end]) > _indent(lines[at]):
        end += 1
    return lines[at + 1 : end], end


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


@cache
def _sections(table: str) -> Mapping[str, str]:
    """What stands below each name's heading; of several that have it, below the first."""
    found: dict[str, str] = {}
    for part in Path(__file__).with_name(table).read_text(encoding="utf-8").split("\n[")[1:]:
        heading, _, text = part.partition("]\n")
        for name in heading.split():
            found.setdefault(name, text)
    return found


__all__ = ["Entry", "entries", "headings", "section"]
