"""How large is each device's compute buffer, where a graph is divided among devices?

The graph is cut as ggml's scheduler would cut it, and each part laid out by itself, with what a backend adds to single
operations (`backends/scratch.py`). llama.cpp's own simulation (no_alloc, llama-fit-params) forgets which operations it
pins to a device, so its figures can differ from those of a real run: `Params.no_alloc` asks for them.

Source: llama.cpp 0c1e570 ggml/src/ggml-backend.cpp, ggml_backend_sched_split_graph; ggml/src/ggml-alloc.c,
ggml_gallocr_reserve_n.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from operator import gt
from typing import Final

from ggufphys.context import ContextParams
from ggufphys.graph.affine import Point
from ggufphys.graph.allocating.alloc import lay_out
from ggufphys.graph.allocating.layers import Layers
from ggufphys.graph.allocating.layout import ATTEMPTS, Layouts
from ggufphys.graph.allocating.traced import Bound, Traced, point_of
from ggufphys.graph.batch import SMALL_BATCH, Batch, lone_prompt, reserved_batches
from ggufphys.graph.devices.backends import Backend
from ggufphys.graph.devices.homes import fetches_experts, homes, layers_of, norm_home, offload
from ggufphys.graph.devices.placed import Placed
from ggufphys.graph.devices.split import PIPELINE_COPIES, split
from ggufphys.graph.ir import Graph, Part
from ggufphys.params import HOST

# What `MUL_MAT_ID` alone reads, by the names in a layer.
EXPERTS: Final = frozenset(
    f"ffn_{part}_{kind}.weight" for part in ("up", "down", "gate", "gate_up") for kind in ("exps", "chexps")
)

Place = tuple[str, frozenset[Hashable]]
"""A layer's device, and which of its weights are on others."""


def divided_sizes(layouts: Layouts, context: ContextParams, placed: Placed) -> dict[str, int]:
    """Bytes of the compute buffer of each device that computes, the host's first."""
    params, placement, arch = placed.params, placed.placement, layouts.h.arch
    n_copies = PIPELINE_COPIES if placed.is_pipelined else 1
    backends = placement.backends
    rules = {HOST: placement.host, **backends}
    alignments = {device: backend.alignment for device, backend in rules.items()}

    def cut(batch: Batch, layers: Layers | None, graph: Graph, *, in_order: bool = True) -> Mapping[str, Part]:
        built = range(layouts.n_layer) if layers is None else layers.built
        pins_norms = (placement.is_whole or batch.n_tokens < SMALL_BATCH) and not params.no_alloc
        return split(
            graph,
            homes(arch, placed, layers_of("ROPE", graph, built)),
            norm_home=norm_home(arch, placement) if pins_norms else None,
            pins_attention=not (params.offload_kqv or params.no_alloc),
            offload=offload(placed),
            backends=backends,
            reorders=in_order,
            n_copies=n_copies,
        )

    def traced(batch: Batch, layers: Layers | None) -> Traced:
        return layouts.tracer.traced(context, batch, layers, partial(cut, batch, layers), placed.division)

    def bound(batch: Batch, samples: Layers) -> Bound:
        unordered = partial(cut, batch, samples, in_order=False)
        return layouts.tracer.bound(context, batch, samples, alignments, unordered, placed.division)

    chunks: dict[str, tuple[int, ...]] = {}
    prompt, decode = reserved_batches(context)
    again = lone_prompt(context) if layouts.lone_prompt and context.n_seq_max > 1 else prompt
    made: dict[Batch, Mapping[str, tuple[int, ...]]] = {}
    for n, batch in enumerate((prompt, decode, again)[: 1 if params.no_alloc else None]):  # simulated: the first alone
        places, choices, samples = divided(layouts, placed, fetches_experts(placed, batch.n_tokens))
        # What did for layers in places like these will mostly do again.
        key = n, places
        first = layouts.attempts.get(key, 0)
        point = point_of(context, batch)
        if batch not in made:
            counts = n, batch.n_seqs, places
            if n and counts not in layouts.decode_counts:
                if _fits(bound(batch, samples), point, chunks):
                    continue  # until it must be laid out once: then it is not much work any more
                layouts.decode_counts.add(counts)
            layouts.attempts[key], made[batch] = _chunks(partial(traced, batch), choices, first, point, rules)
        for device, sizes in made[batch].items():
            if _grows(chunks.get(device, ()), sizes):
                chunks[device] = sizes
    more = 0 if params.no_alloc else 1
    return {device: sum(sizes) + more * len(sizes) * rules[device].more_bytes for device, sizes in chunks.items()}


def _grows(chunks: Sequence[int], sizes: Sequence[int]) -> bool:
    """Is any chunk larger than there is? Then all are allocated anew, as they are wanted now."""
    return len(sizes) > len(chunks) or any(map(gt, sizes, chunks))


def _chunks(
    traced: Callable[[Layers | None], Traced],
    choices: Sequence[Layers | None],
    first: int,
    point: Point,
    rules: Mapping[str, Backend],
) -> tuple[int, Mapping[str, tuple[int, ...]]]:
    """Bytes of each device's chunks, from as few layers as stand for all; and which choice that was, from `first` on.

    The last choice, None, is all layers.
    """
    for attempt, layers in enumerate(choices[first:], first):
        courses = traced(layers).courses
        if courses is not None:
            return attempt, {
                device: lay_out(course, rules[device].alignment, point, rules[device].max_buffer_bytes).chunk_bytes
                for device, course in courses.items()
            }
    raise AssertionError("all layers stand for themselves")


def _fits(bound: Bound, point: Point, chunks: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether each device's buffer has room in its first chunk, however it is laid out: then it needn't be.

    In which order its nodes run, and which of them work in place, does not count.
    """
    return bound.parts is not None and all(
        part.at(point) <= (chunks.get(device) or (-1,))[0] for device, part in bound.parts.items()
    )


def divided(
    layouts: Layouts, placed: Placed, experts_fetched: bool = True
) -> tuple[frozenset[Place], tuple[Layers | None, ...], Layers]:
    """See `Layouts.divided`; a place is a layer's device, and which of its weights are on others."""
    where = placed.division, experts_fetched
    return layouts.divided(where, partial(_places, layouts, placed, experts_fetched), ATTEMPTS)


def _places(layouts: Layouts, placed: Placed, experts_fetched: bool) -> tuple[Place, ...]:
    """For each layer what tells it from others of its kind: its device, and which of its weights are elsewhere.

    Weights on the host that a device may fetch take room there by their types; experts, in large batches alone.
    """
    fetched, placement = offload(placed) is not None, placed.placement
    n_layer, parts = layouts.n_layer, layouts.parts_of_names
    elsewhere: list[set[Hashable]] = [set() for _ in range(n_layer)]
    for buffer, tensors in placed.weights.items():
        for tensor in tensors:
            il, rest = parts[tensor.name]
            if il is None or il >= n_layer:
                continue
            if fetched and buffer.device == HOST:
                counts = experts_fetched or rest not in EXPERTS
                elsewhere[il].add((rest, HOST, tensor.ggml_type if counts else None))
            elif (tensor.nbytes or 0) > buffer.backend.max_tensor_bytes:
                elsewhere[il].add((rest, buffer.device, tensor.ggml_type))
            elif buffer.device != placement.layers[il]:
                elsewhere[il].add((rest, buffer.device))
    return tuple((placement.layers[il], frozenset(elsewhere[il])) for il in range(n_layer))
