"""Rows of quality as a table and as JSON."""

from collections.abc import Sequence
from textwrap import wrap
from typing import Any, Final

from bench.quality.rows import Row
from ggufphys.report.inspection import SCHEMA_VERSION, dumps, table
from ggufphys.units import format_mib

HEADER: Final = (
    "model", "MiB", "bpw", "perplexity", "±", "KL mean", "±", "KL p99", "KL max", "same top", "rms Δp", "memory",
    "prompt t/s", "as predicted", "decode t/s", "as predicted",
)  # fmt: skip
MEANING: Final = (
    "±: standard errors. KL: divergence from the first, in nats. same top: how often the likeliest token is the same. "
    "rms Δp: by how much the probability of the text's token differs. memory: llama.cpp's buffers as predicted, MiB. "
    "t/s: tokens a second, measured."
)


def as_json(rows: Sequence[Row]) -> str:
    """One document: `results`, a row a model, the base first."""
    return dumps({"schema_version": SCHEMA_VERSION, "results": list(rows)})


def as_text(rows: Sequence[Row]) -> str:
    """What was read, and a table."""
    base = rows[0]
    lines = [
        f"{base['n_tokens']:,} tokens judged, in {base['n_windows']:,} windows of {base['n_ctx']:,}; "
        f"a unigram's perplexity is {base['unigram_perplexity']:.1f}",
        "",
        *_table([_cells(row) for row in rows]),
        "",
        *wrap(MEANING, 80),
    ]
    alone = [row["model"] for row in rows[1:] if row["kl_mean"] is None]
    if alone:
        lines += [
            "",
            f"they read the text in other tokens, so they are judged alone: {', '.join(alone)}; bits a byte",
        ]
        lines += [f"  {row['model']}: {row['bits_per_byte']:.4f}" for row in rows]
    lines += [
        f"no speed is predicted: {why}"
        for why in dict.fromkeys(row["predicted"].get("why_no_speed") for row in rows)
        if why
    ]
    requantised = {row["requantised_from"] for row in rows} - {None}
    if requantised:
        lines += ["", f"quantised again, from {', '.join(sorted(requantised))}: worse than from floats"]
    return "\n".join(lines) + "\n"


def _table(cells: Sequence[tuple[str, ...]]) -> list[str]:
    """The table, without the columns that say nothing of any row."""
    columns = [column for column in zip(HEADER, *cells, strict=True) if any(column[1:])]
    heads, *rows = zip(*columns, strict=True)
    return table(heads, rows, right=range(1, len(heads)))


def _cells(row: Row) -> tuple[str, ...]:
    measured = row["measured"] or {}
    return (
        row["model"] + (" (refengine)" if row["engine"] == "refengine" else ""),
        f"{row['file_bytes'] / (1 << 20):,.1f}",
        f"{row['bpw']:.2f}",
        f"{row['perplexity']:.4f}",
        f"{row['perplexity_se']:.4f}",
        _figure(row, "kl_mean", "{:.6f}"),
        _figure(row, "kl_mean_se", "{:.6f}"),
        _figure(row, "kl_p99", "{:.5f}"),
        _figure(row, "kl_max", "{:.4f}"),
        _figure(row, "top1", "{:.2%}"),
        _figure(row, "rms_dp", "{:.3%}"),
        format_mib(row["predicted"]["total_bytes"]),
        _figure(measured, "prompt_tok_per_s", "{:,.1f}"),
        _figure(row["predicted"], "prompt_tok_per_s", "{:,.1f}"),
        _figure(measured, "decode_tok_per_s", "{:,.1f}"),
        _figure(row["predicted"], "decode_tok_per_s", "{:,.1f}"),
    )


def _figure(row: dict[str, Any], name: str, form: str) -> str:
    value = row.get(name)
    return "" if value is None else form.format(value)
