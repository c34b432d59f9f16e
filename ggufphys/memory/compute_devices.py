"""How large is the compute buffer of each device, when layers are offloaded?

The graph is cut as ggml's scheduler would cut it, and each part laid out by itself. What a backend adds for operations
of its own (scratch of flash attention, say) is left out. llama.cpp's own simulation (no_alloc, llama-fit-params)
forgets which operations it pins to a device, so its figures can differ from those of a real run: `Params.no_alloc` asks
for them.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from ggufphys.arch.roles import Role, norm_layer, role_of
from ggufphys.gguf import TensorInfo
from ggufphys.gguf.names import split_name
from ggufphys.graph.affine import Point, Trace
from ggufphys.graph.allocating.alloc import lay_out, side_by_side
from ggufphys.graph.allocating.layers import Layers
from ggufphys.graph.allocating.layout import Layouts
from ggufphys.graph.allocating.traced import Traced, kind_of, point_of
from ggufphys.graph.batch import Batch, lone_prompt, reserved_batches
from ggufphys.graph.building.hyper import PROBED
from ggufphys.graph.devices.split import PIPELINE_COPIES, Home, Offload, Part, assign, split
from ggufphys.graph.ir import Graph, Tensor
from ggufphys.memory.backends import backend_of
from ggufphys.memory.compute import compute_basis
from ggufphys.memory.placement import TOKEN_EMBD, Buffer, Placement, what_places
from ggufphys.memory.terms import Term
from ggufphys.memory.weights import REPACKED
from ggufphys.params import CPU_BUFFER, HOST, ContextParams, Params

ATTEMPTS: tuple[int, ...] = (1, 2, 3)  # as graph.layout's
Place = tuple[str, frozenset[Hashable]]
"""A layer's device, and which of its weights are on others."""

FLASH_ATTN = "FLASH_ATTN_EXT"
SMALL_BATCH = 32  # below it norms stay with their layer: llama-context.cpp, graph_get_cb


def uses_devices(placement: Placement, weights: Mapping[Buffer, Sequence[TensorInfo]]) -> bool:
    """Does anything run elsewhere than on the host? Where weights lie, and where weights of the host are fetched."""
    return any(buffer.device != HOST for buffer in weights) or _offload(placement, weights) is not None


def device_compute_terms(
    layouts: Layouts,
    params: Params,
    context: ContextParams,
    placement: Placement,
    weights: Mapping[Buffer, Sequence[TensorInfo]],
) -> tuple[Term, ...]:
    """Terms of compute_bytes, one a device that computes; the host's first."""
    all_layers = _all_offloaded(placement)
    n_copies = PIPELINE_COPIES if all_layers and is_pipelined(params, placement) else 1

    def cut(batch: Batch, layers: Layers | None, graph: Graph) -> Mapping[str, Part]:
        built = range(layouts.n_layer) if layers is None else layers.built
        pins_norms = (all_layers or batch.n_tokens < SMALL_BATCH) and not params.no_alloc
        return split(
            graph,
            homes(layouts.h.arch, placement, weights, _layers_of("ROPE", graph, built)),
            norm_home=partial(_norm_home, layouts.h.arch, placement) if pins_norms else None,
            pins_attention=not (params.offload_kqv or params.no_alloc),
            offload=_offload(placement, weights),
            n_copies=n_copies,
        )

    where = what_places(params)

    def traced(batch: Batch, layers: Layers | None) -> Traced:
        return layouts.tracer.traced(context, batch, layers, partial(cut, batch, layers), where)

    places, choices, samples = _divided(layouts, where, placement, weights)
    sizes: dict[str, int] = {}
    batches = [*reserved_batches(context)]
    if layouts.lone_prompt and context.n_seq_max > 1:
        batches.append(lone_prompt(context))
    for n, batch in enumerate(batches[: 1 if params.no_alloc else None]):  # the simulation is of the first alone
        # What did for layers in places like these will mostly do again.
        key = n, places
        first = layouts.attempts.get(key, 0)
        point = point_of(context, batch)
        if n and key not in layouts.attempts and _fits(traced(batch, samples), samples, point, sizes):
            continue  # until it must be laid out once: then it is not much work any more
        attempt, found = _sizes(partial(traced, batch), choices, first, point)
        layouts.attempts[key] = attempt
        for device, nbytes in found.items():
            sizes[device] = max(sizes.get(device, 0), nbytes)
    proven = all(backend_of(device.name).proven for device in placement.devices)
    basis = compute_basis(layouts.h.arch, context.ctx_type) if proven else "estimate"
    return tuple(
        Term(
            quantity="compute",
            name="compute buffer",
            nbytes=nbytes,
            buffer=CPU_BUFFER if device == HOST else device,
            formula=f"its part of the graph, laid out by a simulation of ggml's graph allocator ({basis})",
            source="ggml/src/ggml-backend.cpp, ggml_backend_sched_split_graph",
            device=device,
        )
        for device, nbytes in sizes.items()
    )


def _all_offloaded(placement: Placement) -> bool:
    return bool(placement.layers) and HOST not in (*placement.layers, placement.output)


def _norm_home(arch: str, placement: Placement, name: str) -> str | None:
    il = norm_layer(arch, name)
    return placement.layers[il] if il is not None and il < len(placement.layers) else None


def _sizes(
    traced: Callable[[Layers | None], Traced], choices: Sequence[Layers | None], first: int, point: Point
) -> tuple[int, dict[str, int]]:
    """Bytes of each device's buffer, from as few layers as stand for all; and which choice that was, from `first` on.

    The last choice, None, is all layers.
    """
    for attempt, layers in enumerate(choices[first:], first):
        courses = traced(layers).courses
        if courses is not None:
            return attempt, {
                device: lay_out(course, backend_of(device).alignment, point).buffer_bytes
                for device, course in courses.items()
            }
    raise AssertionError("all layers stand for themselves")


def _fits(made: Traced, layers: Layers, point: Point, sizes: Mapping[str, int]) -> bool:
    """Whether no device's buffer can be larger than those of `sizes`: then nothing needs to be laid out."""
    return made.is_bounded and all(
        side_by_side(piece.lifetimes, layers.n_left_out, backend_of(device).alignment, point) <= sizes.get(device, -1)
        for device, piece in made.pieces.items()
    )


def _divided(
    layouts: Layouts, where: Hashable, placement: Placement, weights: Mapping[Buffer, Sequence[TensorInfo]]
) -> tuple[frozenset[Place], tuple[Layers | None, ...], Layers]:
    """See `Layouts.divided`; a place is a layer's device, and which of its weights are on others."""

    def places() -> tuple[Place, ...]:
        fetched = _offload(placement, weights) is not None
        return _places(layouts.n_layer, placement, weights, fetched=fetched)

    return layouts.divided(where, places, ATTEMPTS)


def _places(
    n_layer: int, placement: Placement, weights: Mapping[Buffer, Sequence[TensorInfo]], *, fetched: bool
) -> tuple[Place, ...]:
    """For each layer what tells it from others of its kind: its device, and which of its weights are elsewhere.

    Weights on the host that may be `fetched` to a device take room there by their types.
    """
    elsewhere: list[set[Hashable]] = [set() for _ in range(n_layer)]
    for buffer, tensors in weights.items():
        for tensor in tensors:
            il, rest = split_name(tensor.name)
            if il is None or il >= n_layer:
                continue
            if fetched and buffer.device == HOST:
                elsewhere[il].add((rest, HOST, tensor.ggml_type))
            elif buffer.device != placement.layers[il]:
                elsewhere[il].add((rest, buffer.device))
    return tuple((placement.layers[il], frozenset(elsewhere[il])) for il in range(n_layer))


def _layers_of(op: str, graph: Graph, layers: Sequence[int]) -> Mapping[Tensor, int]:
    """The layer of each node of this operation."""
    ends = [*graph.marks[1:], len(graph.nodes)][: len(graph.marks)]
    return {
        node: il
        for il, start, end in zip(layers, graph.marks, ends, strict=True)
        for node in graph.nodes[start:end]
        if node.op == op
    }


def homes(
    arch: str,
    placement: Placement,
    weights: Mapping[Buffer, Sequence[TensorInfo]],
    rope_layers: Mapping[Tensor, int] | None = None,
) -> Home:
    """Where weights and caches are, as `graph.split` asks for it; names that the file lacks follow their layer.

    `rope_layers` are the layers of rotations, whose factors each device has for its own.
    """
    devices: dict[str, list[str]] = {}
    for buffer, tensors in weights.items():
        for tensor in tensors:
            devices.setdefault(tensor.name, []).append(buffer.device)

    def home(tensor: Tensor, reader: Tensor) -> str:
        if not tensor.name:
            il = tensor.params[1]
            assert isinstance(il, int), "a cache says whose it is"
            return placement.kv(il)
        found = devices.get(tensor.name)
        if found:
            if tensor.name == TOKEN_EMBD and reader.op != "GET_ROWS":
                return found[-1]  # its copy, where the output is
            layer = (rope_layers or {}).get(reader)
            own = found[0] if layer is None else placement.layers[layer]
            return own if own in found else found[0]
        role = role_of(arch, tensor.name)
        if role is Role.INPUT:
            return HOST
        return placement.layers[role] if isinstance(role, int) else placement.output

    return home


def _offload(placement: Placement, weights: Mapping[Buffer, Sequence[TensorInfo]]) -> Offload | None:
    """Which operations on weights of the host does a device take over? Those of batches large enough, not repacked.

    Source: llama.cpp 0c1e570 ggml/src/ggml-backend.cpp, ggml_backend_sched_backend_id_from_cur; ggml/src/ggml-cuda/
    ggml-cuda.cu, get_op_batch_size, and its like.
    """
    takers = [(d.name, backend_of(d.name)) for d in placement.devices if backend_of(d.name).offloads_from]
    if not takers:
        return None
    repacked = frozenset(tensor.name for tensor in weights.get(REPACKED, ()))

    def offload(node: Tensor) -> str | None:
        """The first device that would, in llama.cpp's order."""
        if any(source.name in repacked for source in node.src):
            return None
        n_tokens = {
            "GET_ROWS": 0, "MUL_MAT": node.ne[1], "MUL_MAT_ID": node.ne[2],
        }.get(node.op, node.ne[1] * node.ne[2] * node.ne[3])  # fmt: skip
        for name, backend in takers:
            if n_tokens >= backend.offloads_from and (not backend.offloads_only or node.op in backend.offloads_only):
                return name
        return None

    return offload


def keeps_flash_attn(
    layouts: Layouts,
    params: Params,
    context: ContextParams,
    placement: Placement,
    weights: Mapping[Buffer, Sequence[TensorInfo]],
) -> bool:
    """Would llama.cpp leave flash attention on, when it is to decide? It turns it off if a layer's runs elsewhere.

    Source: llama.cpp 0c1e570 src/llama-context.cpp, resolve_fused_ops.
    """
    where = what_places(params)
    places, _, _ = _divided(layouts, where, placement, weights)
    if placement.offload_kqv and len(places) == 1 and not any(elsewhere for _, elsewhere in places):
        return True  # one device has each layer's weights and cache, and runs what lies between their nodes
    n_seqs = context.n_seq_max
    batch = Batch(n_tokens=n_seqs, n_seqs=n_seqs, n_outputs=n_seqs)

    def keeps(graph: Graph, _: Trace) -> bool:
        devices = assign(graph, homes(layouts.h.arch, placement, weights))
        layers = {n: il for n, il in graph.probed.items() if n.op == FLASH_ATTN}
        layers.update(_layers_of(FLASH_ATTN, graph, range(layouts.n_layer)))
        return all(devices.get(node, HOST) == placement.layers[il] for node, il in layers.items())

    kind = kind_of(context, batch, None, ("keeps_flash_attn", where))
    return layouts.tracer.made(kind, context, batch, None, keeps)


def unfused_ops(
    layouts: Layouts,
    params: Params,
    context: ContextParams,
    placement: Placement,
    weights: Mapping[Buffer, Sequence[TensorInfo]],
) -> tuple[str, ...]:
    """The operations that llama.cpp replaces by simpler ones, since those of some layer would run elsewhere.

    Only nodes that the graph says are `probed`; what flash attention is replaced by, `keeps_flash_attn` decides.

    Source: llama.cpp 0c1e570 src/llama-context.cpp, resolve_fused_ops.
    """
    n_seqs = context.n_seq_max
    batch = Batch(n_tokens=n_seqs, n_seqs=n_seqs, n_outputs=n_seqs)
    pins = _all_offloaded(placement) or n_seqs < SMALL_BATCH

    def elsewhere(graph: Graph, _: Trace) -> tuple[str, ...]:
        if not graph.probed:
            return ()
        norm_home = partial(_norm_home, layouts.h.arch, placement)
        devices = assign(graph, homes(layouts.h.arch, placement, weights), norm_home if pins else None)
        return tuple({n.op for n, il in graph.probed.items() if devices.get(n, HOST) != placement.layers[il]})

    found: tuple[str, ...] = ()
    for op in PROBED:  # each in a graph without those that were given up before
        probe = replace(context, unfused=found)
        kind = kind_of(probe, batch, None, ("unfused_ops", what_places(params)))
        if op in layouts.tracer.made(kind, probe, batch, None, elsewhere):
            found += (op,)
    return found


def is_pipelined(params: Params, placement: Placement) -> bool:
    """Do the devices work on several batches at a time? It takes all layers, several devices, and no overrides.

    Source: llama.cpp 0c1e570 src/llama-context.cpp, llama_context ctor, pipeline_parallel.
    """
    return (
        len(placement.devices) > 1
        and params.split_mode == "layer"
        and params.offload_kqv
        and not params.override_tensor
        and not params.n_cpu_moe
        and all(backend_of(device.name).pipelines for device in placement.devices)
    )
