"""Which tensors does an architecture's loader create? `tensors.txt`, parsed.

Expressions are Python's, over hyperparameters by llama.cpp's names. A section is parsed when its architecture is asked
for, and once.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from types import CodeType
from typing import Final

TEMPLATE: Final = "="  # in front of the names of sections that others use


@dataclass(frozen=True, slots=True)
class Row:
    """A tensor that is created: `name` with `*` for the layer, `shape` a tuple of sizes, `flags` if any."""

    name: str
    shape: CodeType
    flags: CodeType | None


@dataclass(frozen=True, slots=True)
class Let:
    """A name for what follows."""

    name: str
    value: CodeType


@dataclass(frozen=True, slots=True)
class Check:
    """What must be so (`word` is "assert"), or must not ("refuse")."""

    word: str
    text: str
    value: CodeType


@dataclass(frozen=True, slots=True)
class Branch:
    """Rows that count where `condition` holds, and those that count where it doesn't."""

    condition: CodeType
    then: "tuple[Line, ...]"
    otherwise: "tuple[Line, ...]"


@dataclass(frozen=True, slots=True)
class Each:
    """Rows for each layer from `first` to before `end`."""

    first: CodeType
    end: CodeType
    rows: "tuple[Line, ...]"


Line = Row | Let | Check | Branch | Each


@cache
def rows_of(arch: str) -> tuple[Line, ...] | None:
    """An architecture's rows in llama.cpp's order; None for one that has no loader."""
    lines = _section(arch)
    return None if lines is None else tuple(_parse(lines))


@cache
def _section(name: str) -> list[str] | None:
    """The lines below a heading that has this name, one of several."""
    heading = re.search(rf"^\[([^\]\n]* )?{re.escape(name)}( [^\]\n]*)?\]\n", _text(), re.MULTILINE)
    if heading is None:
        return None
    end = _text().find("\n[", heading.end())
    return [line for line in _text()[heading.end() : end if end > 0 else None].splitlines() if line]


@cache
def _text() -> str:
    return resources.files("ggufphys.loads").joinpath("tensors.txt").read_text(encoding="utf-8")


def _parse(lines: Sequence[str]) -> Iterator[Line]:
    at = 0
    while at < len(lines):
        line = lines[at].strip()
        at += 1
        word, _, rest = line.partition(" ")
        if word in ("if", "each"):
            inner, at = _block(lines, at)
            rows = tuple(_parse(inner))
        if word == "if":
            otherwise: Sequence[str] = ()
            if at < len(lines) and lines[at].strip() == "else":
                otherwise, at = _block(lines, at + 1)
            yield Branch(_code(rest), rows, tuple(_parse(otherwise)))
        elif word == "each":
            first, _, end = rest.partition(" ")
            yield Each(_code(first), _code(end), rows)
        elif word in ("assert", "refuse"):
            yield Check(word, rest, _code(rest))
        elif rest.startswith("= "):
            yield Let(word, _code(rest[2:]))
        else:
            yield from _row(line)


def _row(line: str) -> Iterator[Line]:
    name, _, rest = line.partition(": ")
    sizes, _, flags = rest.partition("; ")
    template = None if "." in name else _section(TEMPLATE + name)
    if template is None:
        full_name = f"blk.*{name}" if name.startswith(".") else name
        yield Row(full_name, _code(f"({sizes},)"), _code(flags) if flags not in ("", "0") else None)
        return
    arguments = [f"({size})" if " " in size else size for size in re.split(r", (?![^()]*\))", sizes)]
    yield from _parse([text.format(*arguments, flags=flags or "0") for text in template])


def _block(lines: Sequence[str], start: int) -> tuple[Sequence[str], int]:
    """The lines from `start` on that stand further in than the one before them, and where they end."""
    before, end = _indent(lines[start - 1]), start
    while end < len(lines) and _indent(lines[end]) > before:
        end += 1
    return lines[start:end], end


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


@cache
def _code(text: str) -> CodeType:
    return compile(text, "tensors.txt", "eval")


__all__ = ["Branch", "Check", "Each", "Let", "Line", "Row", "rows_of"]
