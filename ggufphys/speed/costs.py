"""What do reading a prompt and generating tokens compute, and how many bytes do they move?

Read from the graph that llama.cpp builds for each batch (`graph.describing`). A deep model's is not built in full:
layers of one kind cost the same but for the types of their weights, so one more layer of a kind tells what each costs.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

from ggufphys.context import ContextParams
from ggufphys.frozen import dataclass
from ggufphys.gguf import GGUFFile
from ggufphys.gguf.file import require_file
from ggufphys.graph.allocating.layout import Layouts
from ggufphys.graph.batch import Batch
from ggufphys.graph.describing.cost import FIELDS, Cost, node_costs
from ggufphys.graph.describing.kinds import KINDS, Kind, node_kinds
from ggufphys.graph.devices.runs import Runs
from ggufphys.memory.compute import compute_basis
from ggufphys.memory.terms import Basis
from ggufphys.params import Params, params_or_default
from ggufphys.speed.batches import check_lengths, decode_batch, prompt_batch, prompt_length, with_sequences

Costs = Mapping[Kind, Cost]


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseCosts:
    """One phase: `n_tokens` are computed in `n_batches` batches, behind `depth` earlier ones in each sequence."""

    name: str
    n_tokens: int
    n_batches: int
    depth: int
    by_kind: Costs

    @property
    def total(self) -> Cost:
        """The sum over kinds."""
        return added((cost, 1) for cost in self.by_kind.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class CostPrediction:
    """The costs of a prompt and of one step of decoding; `decode` is None for models that generate nothing."""

    basis: Basis
    prefill: PhaseCosts
    decode: PhaseCosts | None

    @property
    def phases(self) -> tuple[PhaseCosts, ...]:
        """Those that there are."""
        return (self.prefill,) if self.decode is None else (self.prefill, self.decode)


def predict_costs(
    gguf: GGUFFile, params: Params | None = None, *, prefill: int = 0, depth: int = 0, batch: int = 1
) -> CostPrediction:
    """Predict FLOPs and bytes moved, by what they are for.

    Args:
        gguf: an open file.
        params: how it will be run.
        prefill: tokens of a prompt; 0 for 512, or as many as fit.
        depth: tokens that each sequence has in its cache beforehand.
        batch: sequences that decode one token each.

    Raises:
        TypeError: an argument of another kind, such as a path.
        UnsupportedError: the file is no model, or its architecture has no rule yet.
        GGUFError: a key or a tensor that the prediction needs is missing or malformed.
        ValueError: llama.cpp would refuse the parameters, or these tokens do not fit into the context.
    """
    require_file(gguf)
    run = Runs(gguf).run(params_or_default(params))
    prefill = prompt_length(run.context, prefill, depth)
    check_lengths(run.context, prefill, depth, batch)
    costs = StepCosts(run.layouts, run.context)
    return CostPrediction(
        basis=compute_basis(run.layouts.h.arch),
        prefill=costs.prefill(prefill, depth),
        decode=costs.decode(batch, depth) if any(costs.layouts.caches) else None,
    )


class StepCosts:
    """The costs of batches of one model in one context."""

    def __init__(self, layouts: Layouts, context: ContextParams) -> None:
        self.layouts = layouts
        self.context = context
        self._made: dict[tuple[ContextParams, Batch], Costs] = {}

    def prefill(self, n_tokens: int, depth: int = 0) -> PhaseCosts:
        """A prompt of one sequence, in batches of n_ubatch; only its last token's logits are wanted.

        Models that keep nothing see it as a whole, and every token is wanted.
        """
        context = with_sequences(self.context, 1)
        if not any(self.layouts.caches):
            whole = self.step(context, Batch(n_tokens=n_tokens, n_seqs=1, n_outputs=n_tokens, n_kv=0))
            return PhaseCosts(name="prefill", n_tokens=n_tokens, n_batches=1, depth=0, by_kind=_rounded([whole]))
        n_ubatch = context.n_ubatch
        n_last = (n_tokens - 1) % n_ubatch + 1
        full = [prompt_batch(n_ubatch, start) for start in range(depth, depth + n_tokens - n_last, n_ubatch)]
        begins = full[: depth == 0]  # clears states: on no line with those that follow
        follows = full[len(begins) :]
        by_cells = {batch.n_kv or 0: batch for batch in follows}
        batches = [
            *(self.step(context, batch) for batch in begins),
            *along_lines(lambda n_kv: self.step(context, by_cells[n_kv]), [batch.n_kv or 0 for batch in follows]),
            self.step(context, prompt_batch(n_last, depth + n_tokens - n_last, 1)),
        ]
        return PhaseCosts(
            name="prefill", n_tokens=n_tokens, n_batches=len(batches), depth=depth, by_kind=_rounded(batches)
        )

    def decode(self, n_seqs: int = 1, depth: int = 0) -> PhaseCosts:
        """One token for each of `n_seqs` sequences."""
        context = with_sequences(self.context, n_seqs)
        costs = self.step(context, decode_batch(context, n_seqs, depth))
        return PhaseCosts(name="decode", n_tokens=n_seqs, n_batches=1, depth=depth, by_kind=_rounded([costs]))

    def step(self, context: ContextParams, batch: Batch) -> Costs:
        """One batch: the costs of one layer of each kind, and those of one more for each of the other layers."""
        key = (context, batch)
        if key not in self._made:
            kinds = self.layouts.kinds
            layers = {kind: [il for il, k in enumerate(kinds) if k == kind] for kind in kinds}
            first = sorted(alike[0] for alike in layers.values())
            base = self._graph_costs(context, batch, first)
            parts = [(base, 1)]
            for alike in layers.values():
                if len(alike) > 1:
                    more = self._graph_costs(context, batch, sorted([*first, alike[1]]))
                    parts += [(more, len(alike) - 1), (base, 1 - len(alike))]
            self._made[key] = {k: added((costs[k], n) for costs, n in parts) for k in KINDS}
        return self._made[key]

    def _graph_costs(self, context: ContextParams, batch: Batch, layers: Sequence[int]) -> Costs:
        graph = self.layouts.graph(context, batch, layers)
        kinds = node_kinds(graph, self.layouts.caches)
        sums = {kind: dict.fromkeys(FIELDS, 0.0) for kind in KINDS}
        for node, cost in node_costs(graph, self.layouts.alike):
            row = sums[kinds[node]]
            for field in FIELDS:
                row[field] += getattr(cost, field)
        return {kind: Cost(**row) for kind, row in sums.items()}


def added(costs: Iterable[tuple[Cost, float]]) -> Cost:
    """The sum of costs, each so many times."""
    total = Cost()
    for cost, times in costs:
        total = total.plus(cost, times)
    return total


def along_lines(costs: Callable[[int], Costs], points: Sequence[int]) -> list[Costs]:
    """`costs` of each of ascending points, with few calls: costs grow in straight lines, with few bends.

    A point in the middle of two that lies on their line stands for all between them.
    """
    known: dict[int, Costs] = {}

    def fill(a: int, b: int) -> None:
        middle = (a + b) // 2
        for i in (a, b, middle):
            known.setdefault(i, costs(points[i]))
        if b - a <= 2:
            return
        if _close(known[middle], _between(known[a], known[b], points[a], points[b], points[middle])):
            for i in range(a + 1, b):
                known.setdefault(i, _between(known[a], known[b], points[a], points[b], points[i]))
        else:
            fill(a, middle)
            fill(middle, b)

    if points:
        fill(0, len(points) - 1)
    return [known[i] for i in range(len(points))]


def _between(first: Costs, last: Costs, a: int, b: int, x: int) -> Costs:
    """On the line through both."""
    share = (x - a) / (b - a) if b > a else 0.0
    return {kind: added(((first[kind], 1 - share), (last[kind], share))) for kind in KINDS}


def _close(one: Costs, other: Costs) -> bool:
    return all(
        abs(getattr(one[kind], field) - getattr(other[kind], field)) <= 1e-9 * max(abs(getattr(one[kind], field)), 1)
        for kind in KINDS
        for field in FIELDS
    )


def _rounded(steps: Iterable[Costs]) -> Costs:
    """The sum over batches, without kinds that cost nothing."""
    steps = list(steps)
    sums = {kind: added((costs[kind], 1) for costs in steps).rounded() for kind in KINDS}
    return {kind: cost for kind, cost in sums.items() if cost.total_bytes or cost.flops}
