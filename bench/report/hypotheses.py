"""Hypotheses: what others claim of local inference, and what came of it here."""

from collections.abc import Sequence
from typing import Any, Final

from bench.hypotheses.verdict import counted
from bench.report.section import Section, Table, commands, of_kind
from bench.results.records import Record

MISSING: Final = "python -m bench.results.run bench hypotheses"


def hypotheses(records: Sequence[Record]) -> Section:
    """Each claim with its verdict and why."""
    runs = of_kind(records, "hypotheses")
    if not runs:
        return Section(key="hypotheses", title="Claims of others", missing=MISSING)
    found = {row["id"]: row for run in runs for row in _rows(run)}
    said = counted(row["verdict"] for row in found.values())
    return Section(
        key="hypotheses",
        title="Claims of others",
        missing=MISSING,
        text=(f"Of {len(found)} claims: {said}.{_by_rules(list(found.values()))}",),
        tables=(Table(header=_HEADER, rows=[_cells(row) for row in found.values()]),),
        commands=commands(runs),
    )


FIGURES: Final = ("predicted", "measured")
_HEADER: Final = ("", "claim", "who says so", "claimed", "found", "verdict", "why")


def _rows(run: Record) -> list[dict[str, Any]]:
    result = run.result
    return list(result if isinstance(result, list) else result.get("hypotheses") or result.get("results") or [])


def _by_rules(rows: Sequence[dict[str, Any]]) -> str:
    n = sum(row.get("basis") == "rules" for row in rows)
    return (
        f" What was found follows for {n} of them from the rules that `inspect` predicts by; nothing was run."
        if n
        else ""
    )


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    unit = row.get("unit") or ""
    figures = (f"{_text(row.get(name))} {unit}".strip() if row.get(name) is not None else "–" for name in FIGURES)
    return (*(_text(row.get(name)) for name in ("id", "claim", "source")), *figures, _text(row["verdict"]),
            _text(row.get("explanation")))  # fmt: skip


def _text(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:,.3g}"
    if isinstance(value, list):
        return " to ".join(map(_text, value))
    if isinstance(value, dict):
        return ", ".join(f"{name} {_text(found)}" for name, found in value.items())
    return str(value)
