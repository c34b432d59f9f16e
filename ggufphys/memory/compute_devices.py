"""How large is the compute buffer of each device, when layers are offloaded?

An estimate: the graph is cut as ggml's scheduler would cut it, and each part laid out by itself. What a backend adds
for operations of its own (scratch of flash attention, say), or moves to a device for large batches, is left out.
llama.cpp's own simulation (no_alloc, llama-fit-params) forgets which operations it pins to a device, so its figures
can differ from those of a real run, which this follows.
"""

from collections.abc import Mapping, Sequence

from ggufphys.arch.roles import role_of
from ggufphys.gguf import TensorInfo
from ggufphys.graph.alloc import allocate
from ggufphys.graph.batch import reserved_batches
from ggufphys.graph.layout import Layouts
from ggufphys.graph.split import PIPELINE_COPIES, Home, split
from ggufphys.memory.backends import backend_of
from ggufphys.memory.placement import TOKEN_EMBD, Buffer, Placement
from ggufphys.memory.terms import Term
from ggufphys.params import CPU_BUFFER, HOST, ContextParams, Params

SMALL_BATCH = 32  # below it norms stay with their layer: llama-context.cpp, graph_get_cb


def device_compute_terms(
    layouts: Layouts,
    params: Params,
    context: ContextParams,
    placement: Placement,
    weights: Mapping[Buffer, Sequence[TensorInfo]],
) -> tuple[Term, ...]:
    """Terms of compute_bytes, one a device that computes; the host's first."""
    arch = layouts.h.arch
    home = homes(arch, placement, weights)

    def layer_home(name: str, op: str) -> str | None:
        role = role_of(arch, name)
        return placement.layers[role] if name.startswith("blk.") and isinstance(role, int) else None

    all_layers = bool(placement.layers) and HOST not in (*placement.layers, placement.output)
    sizes: dict[str, int] = {}
    for batch in reserved_batches(context):
        parts = split(
            layouts.graph(context, batch),
            home,
            offload_kqv=params.offload_kqv,
            norm_home=layer_home if all_layers or batch.n_tokens < SMALL_BATCH else None,
            n_copies=PIPELINE_COPIES if all_layers and is_pipelined(params, placement) else 1,
        )
        for device, part in parts.items():
            sizes[device] = max(sizes.get(device, 0), allocate(part).buffer_bytes)
    return tuple(
        Term(
            quantity="compute",
            name="compute buffer",
            nbytes=nbytes,
            buffer=CPU_BUFFER if device == HOST else device,
            formula="its part of the graph, laid out by a simulation of ggml's graph allocator (estimate)",
            source="ggml/src/ggml-backend.cpp, ggml_backend_sched_split_graph",
            device=device,
        )
        for device, nbytes in sizes.items()
    )


def homes(arch: str, placement: Placement, weights: Mapping[Buffer, Sequence[TensorInfo]]) -> Home:
    """Where each weight is, as `graph.split` asks for it; names that the file lacks follow their layer."""
    devices: dict[str, list[str]] = {}
    for buffer, tensors in weights.items():
        for tensor in tensors:
            devices.setdefault(tensor.name, []).append(buffer.device)

    def home(name: str, op: str) -> str | None:
        found = devices.get(name)
        if found is None:
            role = role_of(arch, name)
            return placement.layers[role] if isinstance(role, int) else placement.output
        if name == TOKEN_EMBD and op != "GET_ROWS":
            return found[-1]  # its copy, where the output is
        return found[0]

    return home


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
