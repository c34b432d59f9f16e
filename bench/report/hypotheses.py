"""Hypotheses: what others claim of local inference, and what came of it here."""

from collections.abc import Sequence
from typing import Any, Final

from bench.hypotheses.experiment import SHIPPED, read_experiments
from bench.hypotheses.verdict import counted
from bench.report.section import Section, Table, commands, of_kind, short
from bench.results.records import Record
from ggufphys.embedded import MODEL

MISSING: Final = "python -m bench.results.run bench hypotheses"


def hypotheses(records: Sequence[Record]) -> Section:
    """Each claim with its verdict and why."""
    runs = of_kind(records, "hypotheses")
    if not runs:
        return Section(key="hypotheses", title="Claims of others", missing=MISSING)
    order = {experiment.id: i for i, experiment in enumerate(read_experiments(SHIPPED))}
    rows = {row["id"]: row for run in runs for row in _rows(run)}.values()
    found = sorted(rows, key=lambda row: order.get(row["id"].split("@")[0], len(order)))
    said = counted(row["verdict"] for row in found)
    return Section(
        key="hypotheses",
        title="Claims of others",
        missing=MISSING,
        text=(f"{_how_many(found)}: {said}.{_by_rules(found)}",),
        tables=(Table(header=_HEADER, rows=[_cells(row) for row in found]),),
        commands=commands(runs),
    )


_HEADER: Final = ("claim", "who says so", "claimed", "found", "by", "verdict", "why")


def _rows(run: Record) -> list[dict[str, Any]]:
    result = run.result
    return list(result if isinstance(result, list) else result.get("hypotheses") or result.get("results") or [])


def _how_many(rows: Sequence[dict[str, Any]]) -> str:
    n_claims = len({row["id"].split("@")[0] for row in rows})
    claims = f"{n_claims} claim{'s' * (n_claims != 1)}"
    return claims if n_claims == len(rows) else f"{claims}, some tried on several models, {len(rows)} outcomes"


def _by_rules(rows: Sequence[dict[str, Any]]) -> str:
    n = sum(row.get("basis") == "rules" for row in rows)
    return (
        f" What was found follows for {n} of them from the rules that `inspect` predicts by; nothing was run."
        if n
        else ""
    )


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    claimed = f"{_text(row.get('predicted'))} {row.get('unit') or ''}".strip()
    return (
        *(_text(row.get(name)) for name in ("claim", "source")), claimed, _text(row.get("measured")), _by(row),
        _text(row["verdict"]), _text(row.get("explanation")),
    )  # fmt: skip


def _by(row: dict[str, Any]) -> str:
    """What a finding comes from: rules, or a run of which model."""
    if row.get("basis") != "measured":
        return row.get("basis") or ""
    return short(row.get("model") or MODEL.name)


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
