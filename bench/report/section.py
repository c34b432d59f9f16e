"""A part of the report: sentences, tables, pictures, the commands that they come from; or what is missing."""

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bench.results.records import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows of text; `right` are columns of numbers."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    right: Sequence[int] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """An SVG, and what it shows in a sentence or two."""

    svg: str
    caption: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One question. Without `tables` and `pictures` it has no data: `missing` is the command that makes them."""

    key: str
    title: str
    missing: str
    text: Sequence[str] = ()
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()
    commands: Sequence[str] = ()

    @property
    def is_empty(self) -> bool:
        """Is there nothing to show?"""
        return not (self.tables or self.pictures)


def of_kind(records: Iterable[Record], kind: str) -> list[Record]:
    """The records of one kind."""
    return [record for record in records if record.kind == kind]


def commands(records: Iterable[Record]) -> tuple[str, ...]:
    """Each command once; those of one machine behind its mark, where there are several."""
    by_machine: dict[str, dict[str, None]] = {}
    for record in records:
        by_machine.setdefault(record.mark, {})[record.command] = None
    return tuple(
        line
        for mark, found in by_machine.items()
        for line in ((f"# on machine {mark}",) if mark else ()) + tuple(found)
    )


def marked(name: str, record: Record) -> str:
    """A name with the mark of the machine that the record is of, where there are several."""
    return f"{name} ({record.mark})" if record.mark else name


def model_and_flags(record: Record) -> tuple[str, list[str]]:
    """What was run, its name without what every file has, and how, by the record's command."""
    words = shlex.split(record.command)[2:]
    model = next((word for word in words if word.endswith(".gguf")), words[0] if words else "")
    return short(model), [word for word in words if word != model]


def short(name: str) -> str:
    """A model's name without what every file has."""
    return name.rsplit("/", 1)[-1].removesuffix(".gguf")
