"""Write `ggufphys/builds/records.py` from the records of builds, and say how predictions stand to each of them.

usage: python -m scripts.list_builds [-v]       -v: each row that is wrong

Needs no llama.cpp. A model is predicted anew only where a rule that its prediction asks for holds in one build and not
in another: a few minutes in all.
"""

import argparse
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

from bench.running.program import run_program
from ggufphys import UnsupportedError, open_gguf
from ggufphys.builds import PINNED, Rule, moves, rules_of
from ggufphys.errors import GGUFPhysError
from ggufphys.gguf import GGUFFile
from ggufphys.memory import judged
from ggufphys.memory.predict import Predictor
from tests import archs, builds, older

TARGET = Path(__file__).parent.parent / "ggufphys" / "builds" / "records.py"
PINNED_COMMIT = "0c1e570"

Rows = tuple[tuple[int, int, int] | str, ...]
Predictions = Mapping[str, Rows]


@dataclass(kw_only=True)
class Standing:
    """How many numbers of a record were predicted, and which rows were not."""

    n_rows: int = 0
    wrong: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def add(self, name: str, rows: Rows, ours: Rows) -> None:
        """Compare a model's rows, where llama.cpp gave numbers."""
        for i, (row, own) in enumerate(zip(rows, ours, strict=True)):
            if isinstance(row, str):
                continue
            self.n_rows += 1
            if row != own:
                self.wrong[name].append(f"row {i}: llama.cpp {row}, ours {own}")

    @property
    def n_exact(self) -> int:
        """Rows that are as predicted."""
        return self.n_rows - sum(map(len, self.wrong.values()))


def main() -> int:
    """Predict, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-v", action="store_true", dest="verbose", help="each row that is wrong")
    args = parser.parse_args()
    standings = {}
    with rules_asked_for():
        known = Known()
        for build in builds.recorded():
            standings[build] = standing = compare(builds.rows(build), predictions(build, known))
            for name, rows, ours in older_rows(build, known):
                standing.add(name, rows, ours)
            exact = f"{standing.n_exact} of {standing.n_rows} rows exact"
            print(f"b{build}: {exact}; not of {_names(standing.wrong)}", flush=True)
            for name, lines in standing.wrong.items() if args.verbose else ():
                print("\n".join(f"    {name}: {line}" for line in lines))
    TARGET.write_text(module(standings))
    return 0


class Asked(frozenset[Rule]):
    """Rules that remember which of them somebody asked for."""

    log: ClassVar[set[object]] = set()

    def __contains__(self, rule: object) -> bool:
        """Whether the rule holds; that it was asked for is noted."""
        self.log.add(rule)
        return super().__contains__(rule)


@contextmanager
def rules_asked_for() -> Iterator[None]:
    """Within, `rules_of` gives rules that remember, and no build is refused for not knowing an architecture."""
    require_known = judged.__dict__["require_known"]
    moves.__dict__["frozenset"] = Asked  # what `rules_of` makes
    rules_of.cache_clear()
    judged.__dict__["require_known"] = lambda arch, build: None  # which is what is found out here
    try:
        yield
    finally:
        del moves.__dict__["frozenset"]
        rules_of.cache_clear()
        judged.__dict__["require_known"] = require_known


@dataclass(kw_only=True)
class Known:
    """Predictions by model, each with the rules that it asked for, those that held, and the rows.

    To be used within `rules_asked_for`.
    """

    by_model: dict[str, list[tuple[frozenset[object], frozenset[object], Rows]]] = field(
        default_factory=lambda: defaultdict(list)
    )

    def rows(self, name: str, gguf: GGUFFile, build: int) -> Rows:
        """The model's rows for a build."""
        holding = frozenset(move.rule for move in moves.MOVES if move.holds(build))
        for asked, held, rows in self.by_model[name]:
            if holding & asked == held:
                return rows
        Asked.log.clear()
        rows = _rows(gguf, build)
        asked = frozenset(Asked.log)
        self.by_model[name].append((asked, holding & asked, rows))
        return rows


def predictions(build: int, known: Known) -> Predictions:
    """Ours for every configuration of the grid; "refused" where we refuse."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.gguf"
        for name in archs.records():
            path.write_bytes(archs.header(name))
            with open_gguf(path) as gguf:
                found[name] = known.rows(name, gguf, build)
    return found


def _rows(gguf: GGUFFile, build: int) -> Rows:
    rows: list[tuple[int, int, int] | str] = []
    try:
        predictor = Predictor(gguf)
    except UnsupportedError:
        return ("refused",) * len(archs.GRID)
    for params in archs.GRID:
        try:
            memory = predictor.predict(replace(params, llama_build=build))
        except (ValueError, GGUFPhysError):  # llama.cpp would refuse it, abort, or not know it
            rows.append("refused")
        else:
            rows.append((memory.model_bytes, memory.context_bytes, memory.compute_bytes))
    return tuple(rows)


def compare(record: builds.Rows, ours: Predictions) -> Standing:
    """Where llama.cpp gave numbers, are ours the same?"""
    standing = Standing()
    for name, rows in record.items():
        standing.add(name, rows, ours[name])
    return standing


def older_rows(build: int, known: Known) -> Iterator[tuple[str, Rows, Rows]]:
    """Models as an older build loads them: their names, its rows and ours."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.gguf"
        for name, (form, rows) in older.records().get(build, {}).items():
            path.write_bytes(older.header(name, form))
            with open_gguf(path) as gguf:
                yield name, rows, known.rows(f"{name} {form}", gguf, build)


def moved(before: builds.Rows, after: builds.Rows) -> dict[str, list[int]]:
    """Models whose numbers differ between two records, or that one alone runs, and the rows."""
    found = {}
    for name, rows in after.items():
        differing = [
            i
            for i, (row, old) in enumerate(zip(rows, before[name], strict=True))
            if row != old and "unknown" not in (row, old) and not (isinstance(row, str) and isinstance(old, str))
        ]
        if differing:
            found[name] = differing
    return found


def moved_older(before: int, after: int) -> set[str]:
    """Models that older builds load otherwise: whose rows differ, or that one of the two alone loads."""
    records = older.records()
    if after not in records:  # it loads them as they are
        return set()
    old, new = records.get(before, {}), records[after]
    return {name for name in old.keys() | new.keys() if old.get(name) != new.get(name)}


def architectures(names: Iterable[str]) -> list[str]:
    """Of which architectures these models are, sorted."""
    return sorted({archs.models()[name].arch for name in names})


def module(standings: Mapping[int, Standing]) -> str:
    """The text of `ggufphys/builds/records.py`."""
    numbers = builds.recorded()
    commits = {n: PINNED_COMMIT if n == PINNED else builds.document(n)["commit"] for n in numbers}
    moves = {
        after: architectures({*moved(builds.rows(before), builds.rows(after)), *moved_older(before, after)})
        for before, after in pairwise(numbers)
    }
    wrong = {n: architectures(standing.wrong) for n, standing in standings.items()}
    text = TARGET.read_text()
    head = text[: text.index("# fmt: off")]
    return head + "\n".join(
        (
            "# fmt: off",
            "RECORDED: Final[Mapping[int, str]] = {",
            *(f'    {n}: "{commit}",' for n, commit in commits.items()),
            "}",
            *_table("MOVED", moves),
            *_table("UNEXPLAINED", wrong),
            "SINCE: Final[Mapping[str, int]] = {",
            *(f'    "{arch}": {n},' for arch, n in since(numbers).items()),
            "}",
            "SEEN: Final[Mapping[str, int]] = {",
            *(f'    "{arch}": {n},' for arch, n in seen(numbers).items()),
            "}",
            "# fmt: on",
            "",
        )
    )


def since(numbers: list[int]) -> dict[str, int]:
    """The first record whose library knows an architecture's name, where that is not the first record."""
    last_without = {arch: n for n in numbers for arch in builds.unknown(n)}
    return {arch: min(m for m in numbers if m > n) for arch, n in sorted(last_without.items())}


def seen(numbers: list[int]) -> dict[str, int]:
    """The first record that gives a number for an architecture, where that is not the first record."""
    first: dict[str, int] = {}
    for n in numbers:
        given = (name for name, rows in builds.rows(n).items() if not all(isinstance(row, str) for row in rows))
        for arch in architectures({*given, *older.records().get(n, {})}):
            first.setdefault(arch, n)
    return {arch: n for arch, n in sorted(first.items()) if n > numbers[0]}


def _table(name: str, rows: Mapping[int, list[str]]) -> Iterable[str]:
    yield f"{name}: Final[Mapping[int, frozenset[str]]] = {{"
    for n, names in rows.items():
        if names:
            yield f"    {n}: frozenset({{"
            line = "       "
            for arch in names:
                if len(line) + len(arch) > 114:
                    yield line
                    line = "       "
                line += f' "{arch}",'
            yield line
            yield "    }),"
    yield "}"


def _names(wrong: Mapping[str, list[str]]) -> str:
    return ", ".join(f"{name} ({len(rows)})" for name, rows in wrong.items()) or "none"


if __name__ == "__main__":
    run_program(main)
