"""How are the tables of loaders written? As sections of lines, some of which stand below others.

A heading names the architectures that share a section: `[qwen2 dream]`. Lines that start with `#` are comments.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources


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
    heading = re.search(rf"^\[([^\]\n]* )?{re.escape(name)}( [^\]\n]*)?\]\n", _text(table), re.MULTILINE)
    if heading is None:
        return None
    end = _text(table).find("\n[", heading.end() - 1)
    lines = _text(table)[heading.end() : end if end >= 0 else None].splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def headings(table: str) -> tuple[str, ...]:
    """Every name that has a section, in order."""
    return tuple(name for names in re.findall(r"^\[(.*)\]$", _text(table), re.MULTILINE) for name in names.split())


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
def _text(table: str) -> str:
    return resources.files("ggufphys.loads").joinpath(table).read_text(encoding="utf-8")


__all__ = ["Entry", "entries", "headings", "section"]
