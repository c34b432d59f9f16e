"""Memory and speed in one table, a row a run of `ggufphys measure`: what README begins with."""

from collections.abc import Sequence
from typing import Any, Final

from bench.report.memory import PARTS
from bench.report.section import Table, marked, model_and_flags, of_kind
from bench.report.speed import PHASES, value
from bench.results.records import Record
from ggufphys.units import format_mib

HEADER: Final = (
    "", "buffers, MiB: predicted", "printed", "process, MiB: predicted", "measured", "prompt, tokens/s: predicted",
    "measured", "generated, tokens/s: predicted", "measured",
)  # fmt: skip


def measured_runs(records: Sequence[Record]) -> list[Record]:
    """Runs of `measure` that came to their end."""
    return [run for run in of_kind(records, "measure") if run.exit == 0]


def overview_table(runs: Sequence[Record]) -> Table:
    """Pairs of columns: predicted, and what llama.cpp printed (`=`: just that), the system said or a clock showed."""
    common = common_flags(runs)
    rows = [_cells(run, common) for run in runs]
    return Table(header=HEADER, rows=rows, right=range(1, len(HEADER)))


def common_flags(runs: Sequence[Record]) -> list[str]:
    """The words that follow the model in each run's command, as far as all have the same."""
    several = [_flags(run) for run in runs]
    n = 0
    while several and all(len(flags) > n and flags[n] == several[0][n] for flags in several):
        n += 1
    return several[0][:n] if several else []


def _flags(run: Record) -> list[str]:
    return model_and_flags(run)[1]


def _cells(run: Record, common: Sequence[str]) -> tuple[str, ...]:
    rows: dict[str, dict[str, Any]] = {row["quantity"]: row for row in run.result["rows"]}
    buffers = [rows[f"{part}_bytes"] for part in PARTS if f"{part}_bytes" in rows]
    process = rows["process_bytes"]
    return (
        marked(" ".join([model_and_flags(run)[0], *_flags(run)[len(common) :]]), run),
        format_mib(sum(row["predicted"] for row in buffers)),
        _printed(buffers),
        *(format_mib(process[side]) for side in ("predicted", "measured")),
        *(_rate(rows.get(phase), side) for phase in PHASES for side in ("predicted", "measured")),
    )


def _printed(rows: Sequence[dict[str, Any]]) -> str:
    if all(row["difference"] == 0 for row in rows):
        return "="
    return "?" if any(row["measured"] is None for row in rows) else format_mib(sum(row["measured"] for row in rows))


def _rate(row: dict[str, Any] | None, side: str) -> str:
    found = None if row is None else value(row[side])
    return "–" if found is None else f"{found:,.1f}"
