"""Can llama.cpp build the model's graph? Its weights that are used without asking, and nodes that ggml would not make.

The architecture's own graph is built here, of one layer of each kind, and looked at.

Source: llama.cpp 0c1e570 src/llama-context.cpp, graph_reserve; ggml/src/ggml.c.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Any, Final

from ggufphys.arch import LayerCache, RecurrentState
from ggufphys.arch.cache_types import check_cache_types, kinds_of_layers
from ggufphys.arch.graph_nodes import BY_SEQUENCE, max_nodes, nodes_of_members
from ggufphys.context import ContextParams
from ggufphys.errors import GGUFError, UnsupportedError
from ggufphys.frozen import replace
from ggufphys.gguf import GGMLType, GGUFFile
from ggufphys.graph.allocating.layers import Layers
from ggufphys.graph.allocating.layout import Layouts
from ggufphys.graph.allocating.traced import point_of
from ggufphys.graph.asserted import first_failure
from ggufphys.graph.batch import reserved_batches
from ggufphys.graph.devices.runs import Runs
from ggufphys.graph.ir import Graph, Tensor
from ggufphys.graph.models import HEADS, MODELS
from ggufphys.loads.refusal import Refusal
from ggufphys.params import Params

BUILDER: Final = "llama.cpp 0c1e570 src/models/, graph"
CONTEXT: Final = "llama.cpp 0c1e570 src/llama-context.cpp, llama_init_from_model, llama_context"
PARAMETERS: Final = "parameters"  # where a reason lies that is none of the file's
GGML: Final = "llama.cpp 0c1e570 ggml/src/ggml.c"
# What kinds of graphs differ in, and how each is asked for.
_PLAIN: Final[Mapping[str, Any]] = {"type_k": "f16", "type_v": "f16"}
_OTHERWISE: Final[Sequence[tuple[str, Mapping[str, Any]]]] = (
    ("without flash attention (-fa off)", {"flash_attn": "off", **_PLAIN}),
    ("with flash attention (-fa on)", {"flash_attn": "on", **_PLAIN}),
    ("with one sequence (-np 1)", {"n_seq_max": 1}),
)


def check_graph(gguf: GGUFFile, params: Params) -> Iterator[Refusal]:
    """Why llama.cpp would make no context of a file that it loads: parameters that do not go with it, or its graph.

    Where another model is wanted beside it, is no reason here.
    """
    try:
        runs = Runs(gguf)
        context, layouts = runs.context(params), runs.layouts_of(params)
        rule = runs.rule_in(params)
        check_cache_types(runs.h, rule, kinds_of_layers(runs.h, rule), context)
        yield from tuple(graph_failures(layouts, context))
    except UnsupportedError:
        return
    except ValueError as error:
        yield Refusal(
            what="a context that llama.cpp does not make of this model", where=PARAMETERS, found=str(error),
            expected="others", source=CONTEXT, ends_process="abort" in str(error), in_context=True,
        )  # fmt: skip


def graph_failures(layouts: Layouts, context: ContextParams, *, on_host: bool = False) -> Iterator[Refusal]:
    """Why llama.cpp would make no context, by graphs at hand. `on_host`: the prompt's is laid out whole afterwards."""
    if layouts.h.arch not in (MODELS if layouts.ctx_type == "default" else HEADS):
        return  # it is another architecture's graph
    if (n_nodes := _least_nodes(layouts, context)) > (room := _room(layouts, context)):  # too many to be built at all
        yield _too_many(n_nodes, room)
        return
    odd = _odd_types(layouts)
    if on_host and not any(odd) and layouts.h.arch not in BY_SEQUENCE and _passes(layouts, context):
        return
    layers = layouts.samples(odd) if layouts.n_layer else None
    try:
        graph = layouts.graph(context, reserved_batches(context)[0], None if layers is None else layers.built)
    except GGUFError as error:  # it asks for a weight that isn't there, or a value that means nothing
        yield Refusal(
            what="the graph cannot be built", where="graph", found=str(error).removeprefix(f"{layouts.gguf.path}: "),
            expected="all weights and hyperparameters that it is made of", source=BUILDER, ends_process=True,
            in_context=True,
        )  # fmt: skip
        return
    failure = first_failure(graph)
    if failure is not None:
        node, expected = failure
        yield Refusal(
            what=f"{node.op} of tensors that do not go together", where=_weight(node) or "graph",
            found=", ".join(_text(source) for source in node.src), expected=expected,
            source=f"{GGML}, {node.op}", ends_process=True, in_context=True,
        )  # fmt: skip
    elif layouts.h.arch in BY_SEQUENCE and layers is not None:
        yield from _too_large(layouts, context, graph, layers)


def _passes(layouts: Layouts, context: ContextParams) -> bool:
    """Whether ggml makes all nodes of the prompt's graph as it is laid out, which has layers of each kind.

    Where it does not, or the graph was made for another context, a graph of its own has the words.
    """
    batch = reserved_batches(context)[0]
    try:
        traced = layouts.likeliest(context, batch)
    except GGUFError:
        return False
    if traced.trace.point != point_of(context, batch):
        return False
    with traced.trace.aside():
        return first_failure(traced.graph) is None


def _too_large(layouts: Layouts, context: ContextParams, graph: Graph, layers: Layers) -> Iterator[Refusal]:
    """More nodes than llama.cpp makes room for: it reserves them by the batch and by the model's tensors."""
    n_nodes = len(graph.nodes) + sum(not leaf.external for leaf in graph.leafs)
    # Each layer that was built stands for some that were not, but for the last: it stands alone.
    n_nodes += sum(n * (end - start) for n, (start, end) in zip(layers.stand_for, pairwise(graph.marks), strict=False))
    room = _room(layouts, context)
    if n_nodes > room:
        yield _too_many(n_nodes, room)


def _least_nodes(layouts: Layouts, context: ContextParams) -> int:
    ratios, caches = layouts.h.compress_ratios or 0, layouts.caches
    sizes = ratios if isinstance(ratios, tuple) else (ratios,) * len(caches)
    attending = (size for size, kept in zip(sizes, caches, strict=False) if not _is_recurrent(kept))
    return nodes_of_members(layouts.h.arch, attending, context.rules)


def _is_recurrent(kept: Iterable[LayerCache]) -> bool:
    return any(isinstance(cache, RecurrentState) for cache in kept)


def _room(layouts: Layouts, context: ContextParams) -> int:
    n_ubatch = min(context.n_ctx, context.n_ubatch)
    return max_nodes(layouts.h.arch, n_tensors=len(layouts.gguf.tensors), n_ubatch=n_ubatch)


def _too_many(n_nodes: int, room: int) -> Refusal:
    return Refusal(
        what="more nodes than llama.cpp makes room for", where="graph", found=f"{n_nodes:,}",
        expected=f"{room:,} or fewer: fewer sequences (-np), one cache for all of them (-kvu), or a larger batch "
        "(-ub)", source="llama.cpp 0c1e570 src/llama-context.cpp, graph_max_nodes", ends_process=True,
        in_context=True,
    )  # fmt: skip


def how_it_runs(params: Params, refusals: Callable[[Params], Sequence[Refusal]]) -> str:
    """In which other way llama.cpp makes a context of the file; empty where it does in none.

    `refusals` says why not of parameters, or raises ValueError.
    """
    for words, others in _OTHERWISE:
        with suppress(ValueError):
            if not refusals(replace(params, **others)):
                return words
    return ""


def _odd_types(layouts: Layouts) -> tuple[frozenset[tuple[str, int]], ...]:
    """Of each layer that runs, what sets it apart from others of its kind: types of weights that aren't multiplied."""
    odd: list[set[tuple[str, int]]] = [set() for _ in range(layouts.n_layer)]
    for tensor, (il, part) in zip(layouts.gguf.tensors, layouts.gguf.split_names, strict=True):
        if il is not None and il < layouts.n_layer and len(tensor.ne) == 1 and tensor.ggml_type != GGMLType.F32:
            odd[il].add((part, int(tensor.ggml_type)))
    return tuple(map(frozenset, odd))


def _weight(node: Tensor) -> str:
    return next((source.name for source in node.src if source.external and source.name), "")


def _text(tensor: Tensor) -> str:
    shape = " x ".join(map(str, tensor.ne))
    return f"{tensor.type.name} {shape}"


__all__ = ["PARAMETERS", "check_graph", "graph_failures", "how_it_runs"]
