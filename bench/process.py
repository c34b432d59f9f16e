"""Is the process's memory as predicted? Files run mapped and read, repacked and not, in steady decode and at the peak.

`python -m bench.process MODEL...` prints a table and exits with 1 if anonymous or file-backed memory is off by more
than the bar: 2 % or 16 MiB, whichever is more.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, Final

from bench.measure.llama import measure
from bench.measure.measurement import Measurement, Row
from bench.running.program import existing_file, run_program
from ggufphys.flags.run import add_run_arguments, params_from
from ggufphys.params import LOAD_MODES, Params
from ggufphys.report.inspection import SCHEMA_VERSION, dumps, table
from ggufphys.units import format_mib

BAR: Final = 0.02
BAR_BYTES: Final = 16 << 20
HELD_TO_THE_BAR: Final = ("process_anon_bytes", "process_file_bytes")
SHOWN: Final = (*HELD_TO_THE_BAR, "peak_weights_bytes", "peak_decode_bytes")


@dataclass(frozen=True, slots=True, kw_only=True)
class Combination:
    """One way of running one file, and what came of it: rows of `measure`, or why there are none."""

    model: str
    load_mode: str
    repacked: bool
    rows: tuple[Row, ...]
    failure: str = ""

    @property
    def holds(self) -> bool:
        """Are anonymous and file-backed memory both within the bar?"""
        rows = [row for row in self.rows if row.quantity in HELD_TO_THE_BAR]
        return len(rows) == len(HELD_TO_THE_BAR) and all(map(within, rows))


def within(row: Row) -> bool:
    """Is the predicted figure within the bar of the measured one?"""
    if row.predicted is None or row.measured is None:
        return False
    return abs(row.predicted - row.measured) <= max(BAR * row.measured, BAR_BYTES)


def combinations(models: Sequence[Path], params: Params, load_modes: Sequence[str]) -> Iterator[Combination]:
    """Run each file in each load mode, with repacked weights and without, one after the other."""
    for model, mode, repacked in product(models, load_modes, (True, False)):
        fields: dict[str, Any] = {**LOAD_MODES[mode], "use_extra_bufts": repacked}
        asked = replace(params, **fields)
        result = measure(model, asked, n_predict=4)
        yield Combination(
            model=model.name,
            load_mode=mode,
            repacked=repacked,
            rows=tuple(row for row in result.rows if row.quantity in SHOWN),
            failure=_failure(result),
        )


def _failure(result: Measurement) -> str:
    return "; ".join(result.notes) if result.retries or not result.child.ok else ""


def as_text(done: Sequence[Combination]) -> str:
    """A line for each quantity of each combination."""
    lines = [
        (
            c.model,
            c.load_mode,
            "yes" if c.repacked else "no",
            row.quantity.removesuffix("_bytes").replace("_", " "),
            *("?" if n is None else format_mib(n) for n in (row.predicted, row.measured)),
            *_difference(row),
            "" if row.quantity not in HELD_TO_THE_BAR else "holds" if within(row) else "OFF",
        )
        for c in done
        for row in c.rows
    ]
    header = ("file", "load mode", "repacked", "quantity", "predicted MiB", "measured MiB", "MiB", "%", "bar")
    n_held = sum(c.holds for c in done)
    said = [f"{c.model}, {c.load_mode}: {c.failure}" for c in done if c.failure]
    return "\n".join([*table(header, lines, right=(4, 5, 6, 7)), "", f"{n_held} of {len(done)} within the bar", *said])


def _difference(row: Row) -> tuple[str, str]:
    if row.difference is None or not row.measured:
        return "?", "?"
    return f"{row.difference / (1 << 20):+.2f}", f"{100 * row.difference / row.measured:+.2f}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run and print; 1 if anything is off or did not run."""
    parser = argparse.ArgumentParser(prog="python -m bench.process", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="+", type=existing_file, metavar="MODEL", help="GGUF files")
    parser.add_argument(
        "--load-modes", nargs="+", choices=tuple(LOAD_MODES), default=("mmap", "none"), help="default: mmap none"
    )
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    add_run_arguments(parser)
    parser.set_defaults(n_ctx=4096)
    args = parser.parse_args(argv)
    done = []
    for combination in combinations(args.models, params_from(args), args.load_modes):
        done.append(combination)
        print(f"{combination.model}, {combination.load_mode}", file=sys.stderr)
    print(dumps({"schema_version": SCHEMA_VERSION, "rows": [asdict(c) for c in done]}) if args.json else as_text(done))
    return 0 if all(c.holds for c in done) else 1


if __name__ == "__main__":
    run_program(main)
