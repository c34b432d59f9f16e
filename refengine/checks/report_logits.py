"""What `verify --logits` prints: dataclass to text table or JSON; no arithmetic here."""

from dataclasses import asdict
from typing import Any, Final

from refengine.checks.columns import columns
from refengine.checks.verify_logits import LogitsReport, LogitsRow

SCHEMA_VERSION: Final = 1
FEW: Final = 32  # positions: of five, one in six pairs of rows of SmolLM2-135M as Q4_1 was beyond its limit


def as_json(report: LogitsReport) -> dict[str, Any]:
    """The report as JSON's types."""
    return {
        "schema_version": SCHEMA_VERSION,
        "ok": report.exit_code == 0,
        "model": report.model,
        "n_prompt": report.n_prompt,
        "n_decode": report.n_decode,
        "seed": report.seed,
        "devices": list(report.devices),
        "llama_build": report.llama_build,
        "noise_nmse": report.noise,
        "rows": [_row(row) for row in report.rows],
    }


def _row(row: LogitsRow) -> dict[str, Any]:
    settings = {"flash_attn": row.flash_attn, "emulate": row.emulate, "limit": row.limit, "ok": row.ok}
    return {**settings, **asdict(row.found)}


def as_text(report: LogitsReport) -> str:
    """A line for each way of running the model."""
    table: list[tuple[str, ...]] = [
        ("flash attention", "arithmetic", "positions", "NMSE", "limit", "max |diff|", "same top-1", "verdict")
    ]
    table += [_cells(row) for row in report.rows]
    place = ", ".join(report.devices)
    lines = [
        f"{report.model}: logits of {report.n_prompt} random tokens (seed {report.seed}) and {report.n_decode} steps",
        f"llama.cpp b{report.llama_build}{f' on {place}' if place else ''} with and without flash attention: "
        f"NMSE {report.noise:.1e}",
    ]
    lines += columns(table, "<<>>>>><")
    if any(not row.ok and row.found.n_positions < FEW for row in report.rows):
        lines.append(
            f"How far llama.cpp is from itself, which the limit follows, is chance in less than {FEW} positions: ask "
            "for more (--prompt-tokens 64) before you believe this difference."
        )
    return "\n".join(lines)


def _cells(row: LogitsRow) -> tuple[str, ...]:
    found = row.found
    return (
        "on" if row.flash_attn else "off",
        "as in ggml" if row.emulate else "as in numpy",
        f"{found.n_positions}",
        f"{found.nmse:.1e}",
        "-" if row.limit is None else f"{row.limit:.1e}",
        f"{found.max_abs:.2g}",
        f"{found.top1:.1%}",
        "not judged" if row.limit is None else "agrees" if row.ok else "DIFFERS",
    )
