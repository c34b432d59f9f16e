"""Hypotheses: what others claim of local inference, and what came of it here."""

import json
from collections.abc import Sequence
from typing import Any, Final

from bench.hypotheses.experiment import SHIPPED, read_experiments
from bench.hypotheses.verdict import counted
from bench.report.section import Section, Table, commands, of_kind, short
from bench.results.records import Record
from ggufphys.embedded import MODEL

Outcome = dict[str, Any]
MISSING: Final = "python -m bench.results.run bench hypotheses"


def hypotheses(records: Sequence[Record]) -> Section:
    """Each claim with its verdict and why."""
    runs = of_kind(records, "hypotheses")
    if not runs:
        return Section(key="hypotheses", title="Claims of others", missing=MISSING)
    order = {experiment.id: i for i, experiment in enumerate(read_experiments(SHIPPED))}
    found = sorted(_outcomes(runs), key=lambda row: order.get(_claim(row), len(order)))
    said = counted(row["verdict"] for row in found)
    return Section(
        key="hypotheses",
        title="Claims of others",
        missing=MISSING,
        text=(f"{_how_many(found)}: {said}.{_by_rules(found)}",),
        tables=(Table(header=_HEADER, rows=[_cells(row) for row in found]),),
        commands=commands(runs),
    )


_HEADER: Final = ("claim", "verdict", "claimed", "found", "by", "why", "who says so")


def _outcomes(runs: Sequence[Record]) -> list[Outcome]:
    """The last of each id on each machine; `marks` are the machines, of one that is the same on several all of them."""
    found: dict[str, Outcome] = {}
    of_machines = {(run.mark, row["id"]): row for run in runs for row in _rows(run)}
    for (mark, _), row in of_machines.items():
        found.setdefault(json.dumps(row, sort_keys=True), {**row, "marks": []})["marks"].append(mark)
    return list(found.values())


def _claim(row: Outcome) -> str:
    """The claim's id: an outcome's has the model behind it."""
    return str(row["id"]).split("@")[0]


def _rows(run: Record) -> list[Outcome]:
    result = run.result
    return list(result if isinstance(result, list) else result.get("hypotheses") or result.get("results") or [])


def _how_many(rows: Sequence[Outcome]) -> str:
    n_claims = len(set(map(_claim, rows)))
    claims = f"{n_claims} claim{'s' * (n_claims != 1)}"
    where = "models and machines" if any(any(row["marks"]) for row in rows) else "models"
    return claims if n_claims == len(rows) else f"{claims}, some tried on several {where}, {len(rows)} outcomes"


def _by_rules(rows: Sequence[Outcome]) -> str:
    n = sum(row.get("basis") == "rules" for row in rows)
    return (
        f" What was found follows for {n} of them from the rules that `inspect` predicts by; nothing was run."
        if n
        else ""
    )


def _cells(row: Outcome) -> tuple[str, ...]:
    claimed = f"{_text(row.get('predicted'))} {row.get('unit') or ''}".strip()
    return (
        _text(row.get("claim")), _text(row["verdict"]), claimed, _text(row.get("measured")), _by(row),
        _text(row.get("explanation")), _text(row.get("source")),
    )  # fmt: skip


def _by(row: Outcome) -> str:
    """What a finding comes from: rules, or a run of which model."""
    name = short(row.get("model") or MODEL.name) if row.get("basis") == "measured" else row.get("basis") or ""
    marks = ", ".join(filter(None, row["marks"]))
    return f"{name} ({marks})" if marks else name


def _text(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    if isinstance(value, list):
        return " to ".join(map(_text, value))
    if isinstance(value, dict):
        return ", ".join(f"{name} {_text(found)}" for name, found in value.items())
    return str(value)
