"""Hypotheses: what others claim of local inference, and what came of it here."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from bench.report.section import Section, Table, commands, of_kind
from bench.results.records import Record

MISSING: Final = "python -m bench.results.run bench hypotheses"


def hypotheses(records: Sequence[Record]) -> Section:
    """Each claim with its verdict and why."""
    runs = of_kind(records, "hypotheses")
    if not runs:
        return Section(key="hypotheses", title="Claims of others", missing=MISSING)
    found = {row["id"]: row for run in runs for row in _rows(run)}
    counts = Counter(row["verdict"] for row in found.values())
    said = ", ".join(f"{n} {verdict}" for verdict, n in counts.most_common())
    return Section(
        key="hypotheses",
        title="Claims of others",
        missing=MISSING,
        text=(f"Of {len(found)} claims: {said}.",),
        tables=(Table(header=_HEADER, rows=[_cells(row) for row in found.values()]),),
        commands=commands(runs),
    )


_HEADER: Final = ("", "claim", "who says so", "predicted", "measured", "verdict", "why")


def _rows(run: Record) -> list[dict[str, Any]]:
    result = run.result
    return list(result if isinstance(result, list) else result.get("hypotheses") or result.get("results") or [])


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    names = ("id", "claim", "source", "predicted", "measured", "verdict", "explanation")
    return tuple(_text(row.get(name)) for name in names)


def _text(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return " to ".join(map(_text, value))
    if isinstance(value, dict):
        return ", ".join(f"{name} {_text(found)}" for name, found in value.items())
    return str(value)
