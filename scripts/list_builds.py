"""Write `ggufphys/builds/records.py` from the records of builds, and say how predictions stand to each of them.

usage: python -m scripts.list_builds [-v]       -v: each row that is wrong

Needs no llama.cpp. Builds with the same rules share their predictions, so it takes about half a minute a set of rules.
"""

import argparse
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from ggufphys import UnsupportedError, open_gguf
from ggufphys.builds import PINNED, Rule, rules_of
from ggufphys.memory.predict import Predictor
from tests import archs, builds

TARGET = Path(__file__).parent.parent / "ggufphys" / "builds" / "records.py"
PINNED_COMMIT = "0c1e570"

Predictions = Mapping[str, tuple[tuple[int, int, int] | str, ...]]


@dataclass(kw_only=True)
class Standing:
    """How many numbers of a record were predicted, and which rows were not."""

    n_rows: int = 0
    wrong: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    @property
    def n_exact(self) -> int:
        """Rows that are as predicted."""
        return self.n_rows - sum(map(len, self.wrong.values()))


def main() -> int:
    """Predict, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-v", action="store_true", dest="verbose", help="each row that is wrong")
    args = parser.parse_args()
    known: dict[frozenset[Rule], Predictions] = {}
    standings = {}
    for build in builds.recorded():
        rules = rules_of(build)
        if rules not in known:
            known[rules] = predictions(build)
        standings[build] = standing = compare(builds.rows(build), known[rules])
        print(f"b{build}: {standing.n_exact} of {standing.n_rows} rows exact; not of {_names(standing.wrong)}", flush=True)
        for name, lines in standing.wrong.items() if args.verbose else ():
            print("\n".join(f"    {name}: {line}" for line in lines))
    TARGET.write_text(module(standings))
    return 0


def predictions(build: int, names: Iterable[str] = ()) -> Predictions:
    """Ours for every configuration of the grid; "refused" where we refuse."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.gguf"
        for name in names or archs.records():
            path.write_bytes(archs.header(name))
            with open_gguf(path) as gguf:
                found[name] = _rows(Predictor(gguf), build) if _runs_alone(gguf) else ("refused",) * len(archs.GRID)
    return found


def _runs_alone(gguf: object) -> bool:
    try:
        Predictor(gguf)  # type: ignore[arg-type]
    except UnsupportedError:
        return False
    return True


def _rows(predictor: Predictor, build: int) -> tuple[tuple[int, int, int] | str, ...]:
    rows: list[tuple[int, int, int] | str] = []
    for params in archs.GRID:
        try:
            memory = predictor.predict(replace(params, llama_build=build))
        except ValueError:
            rows.append("refused")
        else:
            rows.append((memory.model_bytes, memory.context_bytes, memory.compute_bytes))
    return tuple(rows)


def compare(record: builds.Rows, ours: Predictions) -> Standing:
    """Where llama.cpp gave numbers, are ours the same?"""
    standing = Standing()
    for name, rows in record.items():
        for i, (row, own) in enumerate(zip(rows, ours[name], strict=True)):
            if isinstance(row, str):
                continue
            standing.n_rows += 1
            if row != own:
                standing.wrong[name].append(f"row {i}: llama.cpp {row}, ours {own}")
    return standing


def moved(before: builds.Rows, after: builds.Rows) -> dict[str, list[int]]:
    """Models whose numbers differ between two records, and the rows: of what both can say."""
    found = {}
    for name, rows in after.items():
        differing = [
            i
            for i, (row, old) in enumerate(zip(rows, before[name], strict=True))
            if row != old and not {row, old} & {"unknown", "aborts"}
        ]
        if differing:
            found[name] = differing
    return found


def architectures(names: Iterable[str]) -> list[str]:
    """Of which architectures these models are, sorted."""
    return sorted({archs.models()[name].arch for name in names})


def module(standings: Mapping[int, Standing]) -> str:
    """The text of `ggufphys/builds/records.py`."""
    numbers = builds.recorded()
    commits = {n: PINNED_COMMIT if n == PINNED else builds.document(n)["commit"] for n in numbers}
    moves = {
        after: architectures(moved(builds.rows(before), builds.rows(after)))
        for before, after in zip(numbers, numbers[1:], strict=False)
    }
    wrong = {n: architectures(standing.wrong) for n, standing in standings.items()}
    text = TARGET.read_text()
    head = text[: text.index("RECORDED: Final")]
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
            "# fmt: on",
            "",
        )
    )


def since(numbers: list[int]) -> dict[str, int]:
    """The first record that gives a number for an architecture, where that is not the first record."""
    first: dict[str, int] = {}
    for n in numbers:
        given = (name for name, rows in builds.rows(n).items() if not all(isinstance(row, str) for row in rows))
        for arch in architectures(given):
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
    sys.exit(main())
