"""Which fused operations does llama.cpp give up, since those of some layer would run on another device than the layer?

Source: llama.cpp 0c1e570 src/llama-context.cpp, resolve_fused_ops.
"""

from collections.abc import Callable, Hashable, Mapping
from functools import partial
from itertools import pairwise
from typing import Any, TypeVar, cast

from ggufphys.context import ContextParams
from ggufphys.frozen import dataclass, replace
from ggufphys.graph import ops
from ggufphys.graph.affine import Trace
from ggufphys.graph.allocating.layers import Layers, expands_in_time
from ggufphys.graph.allocating.layout import Layouts
from ggufphys.graph.allocating.traced import kind_of, point_of
from ggufphys.graph.batch import SMALL_BATCH, Batch
from ggufphys.graph.building.hyper import PROBED
from ggufphys.graph.devices.backends.attends import ATTENTION, BY_PAIRS, HAVE_THE_REST
from ggufphys.graph.devices.backends.backend import everything
from ggufphys.graph.devices.divided import divided
from ggufphys.graph.devices.homes import homes, layers_of, norm_home, offload
from ggufphys.graph.devices.placed import Placed
from ggufphys.graph.devices.split import VIEWS, assign
from ggufphys.graph.ir import Graph, Tensor
from ggufphys.params import HOST

CELLS = 256  # of the cache in a trial: any number would do

V = TypeVar("V")


def keeps_flash_attn(layouts: Layouts, context: ContextParams, placed: Placed, *, apart: bool) -> bool:
    """Would llama.cpp leave flash attention on, when it is to decide? It turns it off if a layer's runs elsewhere.

    `apart` says whether nodes of another layer may come in between attention and its layer's cache and weights.
    """
    arch, placement = layouts.h.arch, placed.placement
    if not apart and _has_shapes(layouts, context, placed):
        return True
    if placement.offload_kqv and HOST not in placement.layers and _follows_its_cache(layouts, context, placed):
        return True
    places, choices, samples = divided(layouts, placed)
    built = choices[0]
    if placement.offload_kqv and len(places) == 1 and not any(elsewhere for _, elsewhere in places):
        # One device has each layer's weights and cache, and runs what lies between their nodes if it can.
        if all(backend.supports is everything for backend in placement.backends.values()):
            return True
        if placement.is_whole and _surely_attends(layouts, context, placed):
            return True
        built = samples
    n_seqs = context.n_seq_max
    batch = Batch(n_tokens=n_seqs, n_seqs=n_seqs, n_outputs=n_seqs)

    def keeps(graph: Graph, built: Layers | None) -> bool | None:
        if built is not None and built is not samples and not expands_in_time(built, graph.marks):
            return None  # attention may lie between nodes of other layers than it does with all of them
        devices = _assigned(graph, arch, placed, batch)
        layers = {n: il for n, il in graph.probed.items() if n.op == ATTENTION}
        layers.update(layers_of(ATTENTION, graph, range(layouts.n_layer) if built is None else built.built))
        return all(devices.get(node, HOST) == placement.layers[il] for node, il in layers.items())

    def ask(built: Layers | None) -> bool | None:
        question = "keeps_flash_attn", placed.division
        return _asked(layouts, context, batch, built, question, partial(keeps, built=built))

    kept = ask(built)
    return bool(ask(None)) if kept is None else kept


def _follows_its_cache(layouts: Layouts, context: ContextParams, placed: Placed) -> bool:
    """Does attention come directly behind what writes to its layer's cache, and has every device both?

    That runs where the cache lies, and what has no weights goes, devices before the host, where the node before it
    runs: so no other layer comes in between, wherever layers lie. A layer of each kind tells it of all.
    """
    backends = placed.placement.backends.values()

    def follows(graph: Graph) -> bool:
        nodes = [node for node in graph.nodes if node.op not in VIEWS]
        layers = layers_of(ATTENTION, graph, built.built)
        before = ((node, previous) for previous, node in pairwise(nodes) if node.op == ATTENTION)
        return all(
            _writes_cache(previous, layers.get(node, -1))
            and all(backend.runs(node) and backend.runs(previous) for backend in backends)
            for node, previous in before
        )

    n_seqs = context.n_seq_max
    batch = Batch(n_tokens=n_seqs, n_seqs=n_seqs, n_outputs=n_seqs)
    built = layouts.of_each_kind
    return bool(built.built) and _asked(
        layouts, context, batch, built, ("follows_its_cache", placed.placement.devices), follows
    )


def _writes_cache(node: Tensor, il: int) -> bool:
    shown = node.view_src
    return shown is not None and shown.external and not shown.name and shown.params[1:2] == (il,)


def unfused_ops(layouts: Layouts, context: ContextParams, placed: Placed) -> tuple[str, ...]:
    """The operations that llama.cpp replaces by simpler ones, since those of some layer would run elsewhere.

    Only nodes that the graph says are `probed`; what flash attention is replaced by, `keeps_flash_attn` decides.
    """
    arch, placement = layouts.h.arch, placed.placement
    n_seqs = context.n_seq_max
    batch = Batch(n_tokens=n_seqs, n_seqs=n_seqs, n_outputs=n_seqs)

    def elsewhere(graph: Graph) -> tuple[str, ...]:
        if not graph.probed:
            return ()
        devices = _assigned(graph, arch, placed, batch)
        return tuple({n.op for n, il in graph.probed.items() if devices.get(n, HOST) != placement.layers[il]})

    found: tuple[str, ...] = ()
    for op in PROBED:  # each in a graph without those that were given up before
        probe = replace(context, unfused=found)
        if op in _asked(layouts, probe, batch, None, ("unfused_ops", placed.division), elsewhere):
            found += (op,)
    return found


@dataclass(frozen=True, slots=True)
class _Probe:
    """A graph that is asked where its nodes would run, and the answers, each good wherever `trace` holds."""

    graph: Graph
    trace: Trace
    answers: dict[Hashable, Any]


def _asked(
    layouts: Layouts, context: ContextParams, batch: Batch, built: Layers | None, question: Hashable,
    answer: Callable[[Graph], V],
) -> V:  # fmt: skip
    """What `answer` makes of the graph: the same for the same `question`."""
    kind, point = kind_of(context, batch, built, "asked"), point_of(context, batch)
    while True:
        probe = layouts.tracer.made(kind, context, batch, built, lambda graph, trace: _Probe(graph, trace, {}))
        if question not in probe.answers:
            probe.answers[question] = answer(probe.graph)
        if probe.trace.holds_at(point):  # else what was asked just now has another answer here: in a graph of its own
            return cast(V, probe.answers[question])


def _assigned(graph: Graph, arch: str, placed: Placed, batch: Batch) -> Mapping[Tensor, str]:
    """Where the nodes of a probe run, which nobody pins anything else in than norms."""
    placement = placed.placement
    pins = placement.is_whole or batch.n_tokens < SMALL_BATCH
    return assign(
        graph, homes(arch, placed), norm_home(arch, placement) if pins else None,
        pins_attention=False, offload=offload(placed), backends=placement.backends,
    )  # fmt: skip


def _has_shapes(layouts: Layouts, context: ContextParams, placed: Placed) -> bool:
    """Do all devices have all operations, as far as attention goes for heads of every size in this model?"""
    h, backends = layouts.h, placed.placement.backends.values()
    if h.n_lora_kv or not all(backend.supports in HAVE_THE_REST for backend in backends):
        return False
    sizes = {(h.n_embd_head_k, h.n_embd_head_v), (h.n_embd_head_k_swa, h.n_embd_head_v_swa)}
    trials = [_trial(n_k, n_v, context) for n_k, n_v in sizes]
    return all(backend.supports(trial) for backend in backends for trial in trials)


def _trial(n_k: int, n_v: int, context: ContextParams) -> Tensor:
    return ops.flash_attn_ext(
        ops.new_input(ops.F32, n_k, 1, 1),
        ops.new_input(context.type_k, n_k, CELLS, 1),
        ops.new_input(context.type_v, n_v, CELLS, 1),
        ops.new_input(ops.F16, CELLS, 1),
    )


def _surely_attends(layouts: Layouts, context: ContextParams, placed: Placed) -> bool:
    """Do all devices have flash attention for heads of every size in this model, and caches that are not too large?

    Then no graph needs to be built to know. It takes devices that ask of K and of V the same, each by itself, as Vulkan
    does: what they have for heads of one size and of another they have for both together.
    """
    if any(backend.supports in BY_PAIRS for backend in placed.placement.backends.values()):
        return False
    h, tensors = layouts.h, [t for cache in layouts.distinct_caches for t in cache.tensors(context)]
    largest = max((t.nbytes for t in tensors), default=0)
    if any(largest > backend.max_tensor_bytes for backend in placed.placement.backends.values()):
        return False
    sizes = frozenset({
        h.n_embd_head_k, h.n_embd_head_v, h.n_embd_head_k_swa, h.n_embd_head_v_swa, h.n_lora_kv,
        *(t.width for t in tensors),
    })  # fmt: skip
    key = sizes, context.type_k, context.type_v, placed.params
    attends = layouts.attends.get(key)
    if attends is None:
        trials = [_trial(n, n, context) for n in sizes if n]
        attends = layouts.attends[key] = all(
            all(map(backend.supports, trials)) for backend in placed.placement.backends.values()
        )
    return attends
