"""What does an architecture's loader read, and what does it insist on? `hparams.txt`, `building.txt`, parsed.

The table itself says what its lines mean. Expressions are Python's, over hyperparameters that were read before them.
"""

from collections.abc import Iterable, Iterator
from functools import cache
from types import CodeType
from typing import Final, Literal

from ggufphys.frozen import dataclass
from ggufphys.loads.outline import Entry, entries, expression, headings, section

HPARAMS: Final = "hparams.txt"  # what the loader reads
BUILDING: Final = "building.txt"  # what the graph's builder insists on
EVERY: Final = "*"  # the section that comes before an architecture's own
GLOBAL: Final = ("general.", "tokenizer.", "xielu.")  # keys without the architecture in front


@dataclass(frozen=True, slots=True)
class Read:
    """A key that is read: `how`, and the hyperparameter that it becomes."""

    key: str
    how: str
    name: str
    required: bool


@dataclass(frozen=True, slots=True)
class Expression:
    """What the table says of hyperparameters."""

    text: str

    @property
    def code(self) -> CodeType:
        """The expression, compiled."""
        return expression(self.text)[0]

    @property
    def names(self) -> frozenset[str]:
        """The names that the expression looks up."""
        return expression(self.text)[1]


@dataclass(frozen=True, slots=True)
class Rule:
    """A condition that must hold ("assert") or must not ("refuse"), or what `name` becomes ("set")."""

    word: Literal["assert", "refuse", "set"]
    expression: Expression
    name: str = ""


@dataclass(frozen=True, slots=True)
class Pattern:
    """Which layers have a window: the key's array, or else every `period`-th has none."""

    period: int
    dense_first: bool


@dataclass(frozen=True, slots=True)
class Branch:
    """Lines that count where `condition` holds, and those that count where it doesn't."""

    condition: Expression
    then: "tuple[Statement, ...]"
    otherwise: "tuple[Statement, ...]"


Statement = Read | Rule | Pattern | Branch


@cache
def statements(arch: str, table: str = HPARAMS) -> tuple[Statement, ...]:
    """An architecture's own lines of a table, in llama.cpp's order."""
    return tuple(_parse(entries(section(table, arch) or ())))


@cache
def is_known(arch: str) -> bool:
    """Is it an architecture that llama.cpp knows?"""
    return arch in architectures()


@cache
def architectures() -> tuple[str, ...]:
    """Every name that llama.cpp knows."""
    return tuple(name for name in headings(HPARAMS) if name != EVERY)


def _parse(found: Iterable[Entry]) -> Iterator[Statement]:
    for entry in found:
        if entry.word == "if":
            yield Branch(Expression(entry.rest), tuple(_parse(entry.below)), tuple(_parse(entry.otherwise)))
        else:
            yield _statement(entry.line)


def _statement(line: str) -> Statement:
    word, _, rest = line.partition(" ")
    if word == "assert":
        return Rule("assert", Expression(rest))
    if word == "refuse":
        return Rule("refuse", Expression(rest))
    if word == "swa_pattern":
        period, _, first = rest.partition(" ")
        return Pattern(int(period), first == "first")
    if rest.startswith("= "):
        return Rule("set", Expression(rest[2:]), word)
    how, _, name = rest.partition(" ")
    return Read(word, how.removesuffix("?"), name, not how.endswith("?"))


__all__ = [
    "BUILDING", "EVERY", "GLOBAL", "HPARAMS", "Branch", "Expression", "Pattern", "Read", "Rule", "Statement",
    "architectures", "is_known", "statements",
]  # fmt: skip
