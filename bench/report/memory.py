"""Memory: what was predicted beside what was measured, of every recorded `ggufphys measure`."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from bench.pictures import elided
from bench.report.drawing import COLORS, HATCHES, drawing
from bench.report.section import Picture, Section, Table, commands, marked, model_and_flags, of_kind
from bench.results.records import Record
from ggufphys.units import format_mib

MISSING: Final = "python -m bench.results.run measure MODEL.gguf -c 4096 --as library"
PARTS: Final = ("model", "context", "compute", "output")
Row = Mapping[str, Any]


def memory(records: Sequence[Record]) -> Section:
    """Buffers and process, with their residuals."""
    runs = [r for r in of_kind(records, "measure") if _rows(r).get("process_bytes", {}).get("measured")]
    if not runs:
        return Section(key="memory", title="Memory: predicted and measured", missing=MISSING)
    errors = [abs(_off(_rows(r)["process_bytes"])) for r in runs]
    figures = [_rows(r)[f"{part}_bytes"] for r in runs for part in PARTS if f"{part}_bytes" in _rows(r)]
    known = [row for row in figures if row["difference"] is not None]
    alike = sum(row["difference"] == 0 for row in known)
    return Section(
        key="memory",
        title="Memory: predicted and measured",
        missing=MISSING,
        text=(
            f"Of {len(known)} buffer sizes that llama.cpp printed in these runs, {alike} are the predicted ones to its "
            "0.01 MiB. The process's resident memory was off by at most "
            f"{max(errors):.2f} % ({sum(errors) / len(errors):.2f} % on average).",
        ),
        tables=(memory_table(runs),),
        pictures=(_picture(runs),),
        commands=commands(runs),
    )


def memory_table(runs: Sequence[Record]) -> Table:
    """A row a run, MiB; `=` where llama.cpp printed the predicted figure."""
    rows = []
    for run in runs:
        found = _rows(run)
        process = found["process_bytes"]
        rows.append(
            (
                run_name(run),
                *(_buffer(found.get(f"{part}_bytes")) for part in PARTS[:3]),
                format_mib(process["predicted"]),
                format_mib(process["measured"]),
                f"{_off(process):+.2f} %".replace("-", "−"),
            )
        )
    header = ("model and flags", "model", "context", "compute", "process: predicted", "measured", "error")
    return Table(header=header, rows=rows, right=(1, 2, 3, 4, 5, 6))


def run_name(run: Record) -> str:
    """The model, with the flags that it was run with."""
    model, flags = model_and_flags(run)
    return marked(" ".join([model, *flags]), run)


def _rows(run: Record) -> dict[str, Row]:
    return {row["quantity"]: row for row in run.result["rows"] if row["predicted"] is not None}


def _off(row: Row) -> float:
    """Predicted less measured, in percent of the measured."""
    return float(100 * (row["predicted"] - row["measured"]) / row["measured"])


def _buffer(row: Row | None) -> str:
    if row is None:
        return ""
    if row["measured"] is None:
        return f"{format_mib(row['predicted'])} ?"
    same = row["difference"] == 0
    return (
        f"{format_mib(row['predicted'])} ="
        if same
        else f"{format_mib(row['predicted'])} ≠ {format_mib(row['measured'])}"
    )


def _picture(runs: Sequence[Record]) -> Picture:
    with drawing("memory", 9.5, 1.3 + 0.52 * len(runs)) as d:
        left, right = d.figure.subplots(1, 2, width_ratios=(3, 2), sharey=True)
        for i, run in enumerate(runs):
            found = _rows(run)
            whole = sum(found[f"{p}_bytes"]["measured"] or 0 for p in PARTS if f"{p}_bytes" in found)
            for height, side, edge in ((i - 0.2, "predicted", "0.2"), (i + 0.2, "measured", "0.2")):
                x = 0.0
                for k, part in enumerate(PARTS):
                    row = found.get(f"{part}_bytes")
                    width = 100 * (row[side] or 0) / whole if row and whole else 0.0
                    left.barh(
                        height, width, 0.36, left=x, color=COLORS[k], hatch=HATCHES[k], edgecolor=edge, linewidth=0.6,
                        label=part if i == 0 and side == "predicted" else None,
                    )  # fmt: skip
                    x += width
            right.plot(_off(found["process_bytes"]), i, marker="o", color="0.15")
        left.set_yticks(range(len(runs)), [elided(run_name(run)) for run in runs])
        left.invert_yaxis()
        left.set_xlabel("buffers, % of measured")
        left.grid(visible=False, axis="y")
        left.legend(loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=4, frameon=False)
        right.axvline(0, color="0.2", linewidth=1)
        right.axvspan(-3, 3, color="0.92", zorder=0)
        most = max(3.5, *(abs(_off(_rows(run)["process_bytes"])) * 1.2 for run in runs))
        right.set_xlim(-most, most)
        right.set_xlabel("process: error, %")
    caption = (
        "Left: a pair of bars a run, the upper predicted, the lower measured. Right: how far the process's resident "
        "memory was off; grey is the 3 % that `measure --check` allows."
    )
    return Picture(svg=d.svg, caption=caption)
