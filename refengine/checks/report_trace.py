"""What `verify --logits --trace` prints: dataclass to text table or JSON; no arithmetic here."""

from collections import Counter
from dataclasses import asdict
from math import isfinite
from typing import Any, Final

from refengine.checks.columns import columns
from refengine.checks.node_rows import NodeRow
from refengine.checks.trace import TraceReport, sections

SCHEMA_VERSION: Final = 1


def as_json(report: TraceReport) -> dict[str, Any]:
    """The report as JSON's types; an NMSE that is no number, or infinite, becomes null."""
    return {
        "schema_version": SCHEMA_VERSION,
        "ok": report.exit_code == 0,
        "model": report.model,
        "against": report.against,
        "n_prompt": report.n_prompt,
        "n_decode": report.n_decode,
        "seed": report.seed,
        "flash_attn": report.flash_attn,
        "threshold": report.threshold,
        "llama_build": report.llama_build,
        "first": _row(report.first) if report.first else None,
        "rows": [_row(row) for row in report.rows],
    }


def _row(row: NodeRow) -> dict[str, Any]:
    made = asdict(row)
    for key in ("alone", "carried"):
        made[key] = made[key] if isfinite(made[key]) else None
    return made


def as_text(report: TraceReport) -> str:
    """A line for each layer, its worst nodes, and the first node beyond the threshold."""
    table: list[tuple[str, ...]] = [
        ("", "nodes", "same bits", "worst by itself", "node", "worst carried along", "node")
    ]
    table += [_cells(title, rows) for title, rows in sections(report.rows)]
    lines = [
        f"{report.model}: every node of {report.n_prompt} random tokens (seed {report.seed}) and {report.n_decode} "
        f"steps, flash attention {'on' if report.flash_attn else 'off'}: NMSE to llama.cpp b{report.llama_build}'s"
    ]
    if report.against != report.model:
        lines.append(f"llama.cpp computes {report.against}")
    places = Counter(row.buffer for row in report.rows)
    if len(places) > 1:
        lines.append(f"nodes by place: {', '.join(f'{n:,} on {name}' for name, n in places.items())}")
    lines += columns(table, "<>>><><")
    return "\n".join(lines + _verdict(report))


def _cells(title: str, rows: list[NodeRow]) -> tuple[str, ...]:
    alone = max(rows, key=lambda row: (_rank(row.alone), -row.batch, -row.index))
    carried = max(rows, key=lambda row: (_rank(row.carried), -row.batch, -row.index))
    return (
        title,
        f"{len(rows):,}",
        f"{sum(row.is_exact for row in rows):,}",
        f"{alone.alone:.1e}" if alone.alone else "0",
        f"{alone.op} {alone.name}" if alone.alone else "",
        f"{carried.carried:.1e}" if carried.carried else "0",
        f"{carried.op} {carried.name}" if carried.carried else "",
    )


def _rank(nmse: float) -> float:
    return nmse if nmse == nmse else float("inf")


def _verdict(report: TraceReport) -> list[str]:
    row = report.first
    if row is None:
        limits = {row.buffer: report.limit(row.buffer) for row in report.rows}
        least = min(limits.values())
        wider = "".join(f", {limit:g} on {place}" for place, limit in limits.items() if limit > least)
        return [f"no node by itself differs by more than {least:g}{wider}"]
    where = "the prompt" if row.batch == 0 else f"step {row.batch}"
    layer = "outside of the layers" if row.layer is None else f"layer {row.layer}"
    return [
        f"first node that by itself differs by more than {report.limit(row.buffer):g} (of {len(report.beyond):,}): "
        f"{row.name}, {row.op} "
        f"{row.type} {_shape(row.ne)}, {layer}, on {row.buffer}, node {row.index} of {where}: NMSE {row.alone:.1e}",
        *(f"  takes {source.name}, {source.type} {_shape(source.ne)}" for source in row.sources),
        "its operands were llama.cpp's own: the difference is of this node's making, or of the weights it reads",
    ]


def _shape(ne: tuple[int, ...]) -> str:
    """As ggml writes it, innermost axis first, without axes of one element behind the others."""
    n = max((i for i, size in enumerate(ne) if size != 1), default=0) + 1
    return f"({', '.join(map(str, ne[:n]))})"
