"""What each recorded build of llama.cpp says of the small models of `archs.py`, as differences from build to build.

`data/builds/bN.json.gz` holds the rows that differ from the neighbouring record, the one next to it on the way to the
pinned build; that one is `data/archs.json`. A build that knows less gives fewer rows: "refused" where it does not load
the model, "unknown" where it has no such parameter. Architectures whose name is not in its library are listed: a model
may be refused for other reasons, such as biases that the build does not load.
"""

import gzip
import json
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from ggufphys.builds import PINNED
from tests import archs

FOLDER = Path(__file__).with_name("data") / "builds"
Row = tuple[int, int, int] | str
Rows = Mapping[str, tuple[Row, ...]]


def recorded() -> list[int]:
    """The builds, in order, the pinned one among them."""
    return sorted([PINNED, *(int(path.name.split(".")[0][1:]) for path in FOLDER.glob("b*.json.gz"))])


def path_of(build: int) -> Path:
    """The file of a build's record."""
    return FOLDER / f"b{build}.json.gz"


def document(build: int) -> dict[str, Any]:
    """What the file says: the build, its commit and date, the neighbouring record, and the rows that differ."""
    found: dict[str, Any] = json.loads(gzip.decompress(path_of(build).read_bytes()))
    return found


def neighbour(build: int) -> int:
    """The record that this one is told as a difference from: the next on the way to the pinned build."""
    known = [n for n in recorded() if n != build]
    return min(n for n in known if n > build) if build < PINNED else max(n for n in known if n < build)


@cache
def rows(build: int) -> Rows:
    """All rows of a record: (model, context, compute) bytes for each configuration of the grid, or a word."""
    if build == PINNED:
        return {name: record.rows for name, record in archs.records().items()}
    found = document(build)
    base = rows(found["near"])
    differing = found["rows"]
    return {name: _changed(base[name], differing.get(name, ())) for name in base}


def unknown(build: int) -> frozenset[str]:
    """Architectures of the pinned build whose names the build's library does not have."""
    return frozenset() if build == PINNED else frozenset(document(build)["unknown"])


def _changed(base: tuple[Row, ...], differing: list[list[Any]]) -> tuple[Row, ...]:
    new = list(base)
    for i, *row in differing:
        new[i] = row[0] if isinstance(row[0], str) else (row[0], row[1], row[2])
    return tuple(new)


def differences(new: Rows, base: Rows) -> dict[str, list[list[Any]]]:
    """The rows of `new` that differ, as a record keeps them."""
    found = {}
    for name, all_rows in new.items():
        changed = [
            [i, *([row] if isinstance(row, str) else row)]
            for i, (row, old) in enumerate(zip(all_rows, base[name], strict=True))
            if row != old
        ]
        if changed:
            found[name] = changed
    return found


def write(build: int, commit: str, date: str, new: Rows, not_known: Iterable[str], near: int | None = None) -> None:
    """Write the record of a build, as the difference from its neighbour."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    near = neighbour(build) if near is None else near
    text = json.dumps(
        {
            "build": build, "commit": commit, "date": date, "near": near, "unknown": sorted(not_known),
            "rows": differences(new, rows(near)),
        },
        separators=(",", ":"),
    )  # fmt: skip
    path_of(build).write_bytes(gzip.compress(text.encode(), 9, mtime=0))
