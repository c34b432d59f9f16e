"""How are the tables of loaders written? As sections of lines, some of which stand below others.

A heading names the architectures that share a section: `[qwen2 dream]`. Lines that start with `#` are comments.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from types import CodeType

from ggufphys.frozen import dataclass
from ggufphys.paths import beside, read_text


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
def expression(text: str) -> tuple[CodeType, frozenset[str]]:
    """Python's code of an expression, to be evaluated with what it looks up as globals, and the names of that.

    Made when it is asked for: most of an architecture's are not for most files. And without `compile`, which prepares
    all the types of syntax trees first, for two milliseconds.
    """
    code: CodeType = eval(f"lambda: ({text})", {}).__code__
    return code, frozenset(_names(code))


def _names(code: CodeType) -> Iterator[str]:
    """What it looks up, comprehensions in it too."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


@cache
def _sections(table: str) -> Mapping[str, str]:
    """What stands below each name's heading; of several that have it, below the first."""
    found: dict[str, str] = {}
    for part in read_text(beside(__file__, table)).split("\n[")[1:]:
        heading, _, text = part.partition("]\n")
        for name in heading.split():
            found.setdefault(name, text)
    return found


__all__ = ["Entry", "entries", "expression", "headings", "section"]
