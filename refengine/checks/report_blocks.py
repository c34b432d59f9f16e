"""What `verify` prints: dataclass to text table or JSON; no arithmetic here."""

from dataclasses import asdict
from math import isfinite
from typing import Any, Final

from refengine.checks.blocks import Report
from refengine.checks.columns import columns
from refengine.checks.compare import Difference

SCHEMA_VERSION: Final = 1


def as_json(report: Report) -> dict[str, Any]:
    """The report as JSON's types: infinite differences, which JSON has no number for, become null."""
    rows = [asdict(row) for row in report.synthetic + report.tensors]
    for row in rows:
        for peer in (row["ggml"], row["gguf"]):
            if peer and not isfinite(peer["max_abs"]):
                peer["max_abs"] = None
    return {
        "schema_version": SCHEMA_VERSION,
        "ok": report.exit_code == 0,
        "llama_cpp": report.llama_cpp,
        "gguf": report.gguf,
        "numpy": report.numpy,
        "seed": report.seed,
        "model": report.model,
        "rows": rows,
    }


def as_text(report: Report) -> str:
    """The report as a table, and below it a line for each first difference."""
    rows = report.synthetic + report.tensors
    table = [("type", "blocks from", "blocks", "max |diff| to ggml", "to gguf", "verdict")]
    table += [
        (row.type, row.source, f"{row.n_blocks:,}", _magnitude(row.ggml), _magnitude(row.gguf), row.verdict.value)
        for row in rows
    ]
    lines = [f"llama_cpp {report.llama_cpp}, gguf {report.gguf}, numpy {report.numpy}, seed {report.seed}"]
    lines += columns(table, "<<>>><")
    for row in rows:
        for name, peer in (("ggml", row.ggml), ("gguf", row.gguf)):
            if peer and peer.first:
                lines.append(
                    f"{row.type}: {peer.n_different:,} weights differ from {name}'s, the first in {peer.first}"
                )
        if row.note:
            lines.append(f"{row.type}: {row.note}")
    return "\n".join(lines)


def _magnitude(peer: Difference | None) -> str:
    if peer is None:
        return "-"
    if not isfinite(peer.max_abs):
        return "NaN or Inf"
    return f"{peer.max_abs:.2g}" if peer.max_abs else "0"
