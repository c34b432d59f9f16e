"""Does a claim hold? What was found beside what was said."""

from collections import Counter
from collections.abc import Iterable
from math import isinf
from typing import Any, Final

from bench.hypotheses.experiment import Experiment
from bench.hypotheses.finding import Finding

HOLDS: Final = "holds"
FAILS: Final = "fails"
NOT_HERE: Final = "not testable here"
GIB: Final = (1 << 30) / 1e9
"""GB of a GiB."""


def verdict(experiment: Experiment, found: Finding) -> str:
    """`holds` if what was found lies in the claim's range, `fails` if not.

    Where an interval is known it decides: one that reaches over an end of the range decides nothing.
    """
    if found.value is None:
        return NOT_HERE
    low, high = _widened(experiment)
    at, until = found.interval or (found.value, found.value)
    if low <= at and until <= high:
        return HOLDS
    return FAILS if until < low or at > high else NOT_HERE


def counted(verdicts: Iterable[str]) -> str:
    """How many of each, the most frequent first: `12 fail, 1 holds, 2 not testable here`."""
    counts = Counter(verdicts).most_common()
    return ", ".join(f"{n} {said.removesuffix('s') if n != 1 and said != NOT_HERE else said}" for said, n in counts)


def _widened(experiment: Experiment) -> tuple[float, float]:
    """The claim's range with its tolerance; an open end stays open."""
    by = [0.0 if isinf(end) else abs(end) * experiment.tolerance for end in (experiment.low, experiment.high)]
    return experiment.low - by[0], experiment.high + by[1]


def _holds_in_gib(experiment: Experiment, gb: float) -> bool:
    low, high = _widened(experiment)
    return low <= gb / GIB <= high


def deviation(experiment: Experiment, found: Finding) -> float | None:
    """By which share of what was said the finding lies outside of it; 0 inside, None where that says nothing."""
    if found.value is None:
        return None
    end = min(max(found.value, experiment.low), experiment.high)
    return (found.value - end) / abs(end) if end else None


def row(experiment: Experiment, found: Finding, *, measured: bool, unit: str) -> dict[str, Any]:
    """An experiment's outcome as it is printed and kept."""
    said = verdict(experiment, found)
    explanation = found.explanation
    if said == FAILS and unit.startswith("GB") and found.value is not None and _holds_in_gib(experiment, found.value):
        explanation += f" In GiB, which many call GB, it is {found.value / GIB:.4g}: so read, it holds."
    if said == FAILS and experiment.if_fails:
        explanation += f" {experiment.if_fails}"
    if said == NOT_HERE and found.interval is not None:
        explanation += " The interval reaches over an end of what was claimed, so it is not decided."
    return {
        "id": experiment.id,
        "claim": experiment.claim,
        "source": experiment.source,
        "quantity": experiment.quantity,
        "unit": unit,
        "setup": dict(experiment.setup),
        "predicted": experiment.predicted,
        "measured": found.value,
        "interval": found.interval,
        "basis": None if found.value is None else "measured" if measured else "rules",
        "deviation": deviation(experiment, found),
        "tolerance": experiment.tolerance,
        "verdict": said,
        "limit": found.limit or None,
        "explanation": explanation,
    }
