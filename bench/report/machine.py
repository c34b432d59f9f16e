"""The machine: what it is, with which llama.cpp, and how fast its memory and kernels were measured to be."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from bench.report.drawing import LINE_COLORS, MARKERS, drawing, plain_ticks
from bench.report.section import Picture, Section, Table, commands, marked, of_kind
from bench.results.records import Record
from ggufphys.speed.rates import SCHEMA_VERSION, Processor
from ggufphys.units import format_bytes

CALIBRATE: Final = "python -m bench.results.run bench calibrate"
ROW: Final = 4096  # weights of a row of the products that are drawn
_DRAWN: Final = (2, 3, 5, SCHEMA_VERSION)  # rows of `ROW` weights were measured in all, their seconds kept alike


def with_marks(records: Sequence[Record]) -> list[Record]:
    """The records, with a letter for each machine where there are several: rows and curves are told apart by it."""
    names = list(dict.fromkeys(record.machine_name for record in records))
    if len(names) < 2:
        return list(records)
    marks = {name: chr(ord("A") + i) if i < 26 else str(i + 1) for i, name in enumerate(names)}
    return [replace(record, mark=marks[record.machine_name]) for record in records]


def machine(records: Sequence[Record]) -> Section:
    """A row a machine that results were recorded on."""
    machines: dict[str, list[Record]] = {}
    for record in records:
        machines.setdefault(record.machine_name, []).append(record)
    rows = [
        (
            *filter(None, (found[0].mark,)),
            str(found[-1].machine["cpu"]),
            str(found[-1].machine["n_cpus"]),
            format_bytes(found[-1].machine["memory_bytes"]),
            ", ".join(found[-1].machine["features"]),
            found[-1].machine["system"],
            ", ".join(dict.fromkeys(_build(record) for record in found)),
            " to ".join(dict.fromkeys((found[0].recorded[:10], found[-1].recorded[:10]))),
            _loads(found),
            str(len(found)),
        )
        for found in machines.values()
    ]  # fmt: skip
    header = ("CPU", "CPUs", "memory", "features", "system", "llama.cpp", "recorded", "load average", "runs")
    several = len(rows) > 1
    return Section(
        key="machine",
        title="The machines" if several else "The machine",
        missing="python -m bench.results.run COMMAND",
        text=("What was found on which of them is told by these letters below.",) if several else (),
        tables=(Table(header=("", *header) if several else header, rows=rows, right=_RIGHT[several]),) if rows else (),
    )


_RIGHT: Final = ((1, 2, 7, 8), (2, 3, 8, 9))  # columns of numbers: of one machine, of several


def calibration(records: Sequence[Record]) -> Section:
    """Memory's bandwidth and the rates of products, by type and columns."""
    runs = [run for run in of_kind(records, "calibrate") if run.result.get("processors")]
    if not runs:
        return Section(key="calibration", title="Calibration", missing=CALIBRATE)
    hosts = [(run, p) for run in runs for p in run.result["processors"]]
    rows = [
        (
            marked(p["name"], run),
            str(p["n_threads"] or ""),
            f"{p['streams'][-1][1] / 1e9:.1f}",
            f"{p['streams'][0][1] / 1e9:.1f}",
            f"{p['flops_per_s'] / 1e9:,.0f}",
            f"{1e6 * p['node_s']:.2f}",
            f"{1e6 * p['step_s']:.1f}",
        )
        for run, p in hosts
    ]
    header = (
        "processor",
        "threads",
        "memory, GB/s",
        "a core's cache, GB/s",
        "GFLOP/s (median type)",
        "node, µs",
        "batch, µs",
    )
    last = {
        run.mark: (run, p) for run in runs if is_readable(run) for p in run.result["processors"] if p.get("products")
    }
    pictures = tuple(_picture(p, i, run.mark) for i, (run, p) in enumerate(last.values()))
    return Section(
        key="calibration",
        title="Calibration",
        missing=CALIBRATE,
        text=(
            "What llama.cpp's own kernels were measured to take here; predictions of speed are made of these rates.",
        ),
        tables=(Table(header=header, rows=rows, right=range(1, 7)),),
        pictures=pictures,
        commands=commands(runs),
    )


def is_readable(run: Record) -> bool:
    """Whether its rates can be drawn: a calibration of an earlier schema than these has its row, but no picture."""
    return run.result.get("schema_version", SCHEMA_VERSION) in _DRAWN


def product_rates(processor: Mapping[str, Any]) -> dict[str, dict[int, float]]:
    """FLOPs a second of products by the weights' type and columns, rows of `ROW` weights from main memory."""
    return {
        name: {rate.n_columns: 2 * rate.n_columns * ROW / rate.row(ROW)[1] for rate in found}
        for name, found in Processor.from_json(processor).products.items()
    }


def _loads(records: Sequence[Record]) -> str:
    """How busy the machine was when runs began: what was measured then is as good as that."""
    loads = [record.load for record in records if record.load is not None]
    return " to ".join(dict.fromkeys(f"{load:.1f}" for load in (min(loads), max(loads)))) if loads else "?"


def _build(record: Record) -> str:
    build = record.build
    if not build.get("llama_cpp_python"):
        return "not installed"
    return f"b{build['llama_build']} (llama-cpp-python {build['llama_cpp_python']})"


def _picture(processor: dict[str, Any], i: int, mark: str) -> Picture:
    """Products of each type: how many operations a second with one column, with a few, with many."""
    rates = product_rates(processor)
    shown = _shown({n for found in rates.values() for n in found})
    names = sorted(rates, key=lambda name: rates[name].get(shown[-1], 0.0))
    with drawing(f"calibration{i}", 9.5, 1.2 + 0.2 * len(names)) as d:
        axes = d.figure.subplots()
        for k, n in enumerate(shown):
            known = [(rates[name][n] / 1e9, at) for at, name in enumerate(names) if n in rates[name]]
            axes.plot(
                [rate for rate, _ in known], [at for _, at in known], MARKERS[k % 8], color=LINE_COLORS[k % 7],
                markeredgecolor="0.2", markersize=6, label=f"{n} column{'s' * (n != 1)}",
            )  # fmt: skip
        axes.set_xscale("log")
        plain_ticks(axes.xaxis)
        axes.set_yticks(range(len(names)), names, fontsize=8)
        axes.set_xlabel("GFLOP/s")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(shown), frameon=False)
    n, where = processor["n_threads"], f"Machine {mark}. " if mark else ""
    return Picture(
        svg=d.svg,
        caption=f"{where}Products by the weights' type on {n} thread{'s' * (n != 1)}, rows of {ROW:,} weights from "
        "main memory. A column is a token of the batch: generating has one a sequence, reading a prompt as many as a "
        "micro-batch; all share a weight that was read once.",
    )


def _shown(columns: set[int]) -> list[int]:
    """One, the most, and what is in the middle of them."""
    found = sorted(columns)
    return list(dict.fromkeys((found[0], found[len(found) // 2], found[-1])))
