"""The answer to `inspect --costs`: a table a phase, a row a kind of nodes; JSON with the same numbers unrounded."""

from collections.abc import Iterator
from typing import Final

from ggufphys.frozen import asdict
from ggufphys.graph.describing.cost import Cost
from ggufphys.report.inspection import Section, table
from ggufphys.speed.costs import CostPrediction, PhaseCosts
from ggufphys.units import format_giga, format_mib, format_ratio

_HEADER: Final = ("", "GFLOP", "weights MiB", "cache MiB", "activations MiB", "FLOP/B")


def costs_section(costs: CostPrediction) -> Section:
    """Prefill and decode, as tables and as `costs` of the document."""
    lines = [line for phase in costs.phases for line in _phase_lines(phase, costs.basis == "estimate")]
    value = {"basis": costs.basis, **{phase.name: _phase_value(phase) for phase in costs.phases}}
    return Section(key="costs", lines=tuple(lines[:-1]), value=value)


def _phase_lines(phase: PhaseCosts, is_estimate: bool) -> Iterator[str]:
    rows = [*phase.by_kind.items(), ("total", phase.total)]
    title = (
        f"prefill of {phase.n_tokens:,} tokens in {phase.n_batches:,} batch{'es' * (phase.n_batches > 1)}"
        if phase.name == "prefill"
        else f"decode of {phase.n_tokens} sequence{'s' * (phase.n_tokens > 1)}, one token each"
    )
    yield f"{title}, at depth {phase.depth:,}" + (" (estimate)" if is_estimate else "")
    yield from table(_HEADER, (_cells(name, cost) for name, cost in rows), right=(1, 2, 3, 4, 5))
    yield ""


def _cells(name: str, cost: Cost) -> tuple[str, ...]:
    mib = (format_mib(round(n)) for n in (cost.weight_bytes, cost.cache_bytes, cost.activation_bytes))
    return name, format_giga(cost.flops), *mib, format_ratio(cost.intensity)


def _phase_value(phase: PhaseCosts) -> dict[str, object]:
    return {
        "n_tokens": phase.n_tokens,
        "n_batches": phase.n_batches,
        "depth": phase.depth,
        "kinds": {kind: _cost_value(cost) for kind, cost in phase.by_kind.items()},
        "total": _cost_value(phase.total),
    }


def _cost_value(cost: Cost) -> dict[str, object]:
    return {**asdict(cost), "total_bytes": cost.total_bytes, "intensity": cost.intensity}
