"""The answers to --explain and --budget for speed, as text and JSON."""

from collections.abc import Iterator

from ggufphys.frozen import asdict
from ggufphys.plan.budget import BudgetVerdict
from ggufphys.plan.faster import Faster, SpeedExplanation
from ggufphys.report.inspection import Section, table
from ggufphys.report.speed import figure_json, format_seconds
from ggufphys.units import format_mib

SHOWN = 8  # weights


def explained_speed_section(found: SpeedExplanation) -> Section:
    """Where time goes, and what would help."""
    return Section(key="speed_explained", lines=tuple(_lines(found)), value=asdict(found))


def _lines(found: SpeedExplanation) -> Iterator[str]:
    parts = ", ".join(f"{kind} {share:.0%}" for kind, share in found.kinds.items() if share >= 0.005)
    yield f"where a step's time goes: {parts}"
    rows = [(s.name, format_seconds(s.seconds), f"{s.of_seconds:.0%}") for s in found.shares[:SHOWN]]
    yield from table(("weight", "seconds a step", "share"), rows, right=(1, 2))
    if found.compute_bound_batch is not None:
        n = found.compute_bound_batch
        yield f"arithmetic limits decoding from {n} sequence{'s' * (n > 1)} at once on"
    if found.distinct_experts:
        each = ", ".join(f"{n}: {count:.1f}" for n, count in found.distinct_experts.items())
        yield f"experts of a layer that so many tokens are expected to touch: {each}"
    if found.changes:
        yield ""
        yield from table(
            ("what would be faster, the cheapest first", "flags", "decode", "prefill", "MiB more"),
            [_change(change) for change in found.changes],
            right=(2, 3, 4),
        )


def _change(change: Faster) -> tuple[str, ...]:
    return (
        change.what,
        change.flags,
        "" if change.decode is None else f"x {change.decode:.2f}",
        f"x {change.prefill:.2f}",
        "?" if change.more_bytes is None else f"{'-' * (change.more_bytes < 0)}{format_mib(abs(change.more_bytes))}",
    )


def budget_section(verdict: BudgetVerdict) -> Section:
    """Whether a budget holds, and for how many users."""
    budget = verdict.budget
    asked = f"{budget.n_in:,} in, {budget.n_out:,} out, p{budget.percentile:g} {format_seconds(budget.limit_s)}"
    found = verdict.latency
    line = (
        f"budget of {asked}: {'holds' if verdict.holds else 'does not hold'}; alone a request takes "
        f"{format_seconds(found.value)} ({format_seconds(found.low)} to {format_seconds(found.high)})"
    )
    if verdict.holds:
        users = f"{verdict.users} user{'s' * (verdict.users > 1)}"
        line += f"; it holds for {users} at once, certainly for {verdict.certain_users}"
    value = {
        **asdict(budget), "latency_s": figure_json(found), "holds": verdict.holds, "users": verdict.users,
        "certain_users": verdict.certain_users,
    }  # fmt: skip
    return Section(key="budget", lines=(line,), value=value)
