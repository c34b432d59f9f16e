"""What should a reader know of a prediction's figures? A sentence each."""

from collections.abc import Iterator, Sequence

from ggufphys.context import ContextParams
from ggufphys.graph.devices.placed import Placement
from ggufphys.graph.devices.placement import divides_unknown_memory
from ggufphys.memory.context import beyond_training
from ggufphys.memory.phases import process_memory
from ggufphys.memory.terms import Term
from ggufphys.params import Params


def notes_on(
    params: Params, context: ContextParams, placement: Placement, weights: Sequence[Term], n_ctx_train: int
) -> Iterator[str]:
    """Notes on a run, of which `weights` are the terms of the weights."""
    if beyond := beyond_training(params, context.n_ctx_seq, n_ctx_train):
        yield beyond
    if params.use_mlock:
        locked = process_memory(weights, use_mlock=True).locked_bytes
        yield (
            f"{locked:,} bytes are to be locked: where that is more than the limit (ulimit -l), llama.cpp says so and "
            "runs on unlocked"
        )
    if not params.devices and params.n_gpu_layers > 0:
        yield f"no device to offload {params.n_gpu_layers} layers to: everything lies on the host (see --device)"
    if divides_unknown_memory(params, placement.devices):
        yield (
            "the devices' free memory is not known, by which llama.cpp divides the layers: equal shares assumed (say "
            "it with --device NAME=24GiB, or give --tensor-split)"
        )
    if not (context.flash_attn or context.v_trans):
        yield (
            "llama.cpp will turn flash attention off: some layer's attention would run on another device than the "
            "layer (--flash-attn on keeps it)"
        )
    unproven = [name for name, backend in placement.backends.items() if not backend.proven]
    if unproven:
        yield (
            f"sizes on {', '.join(unproven)} follow the backend's source; the tests compare with llama.cpp on the CPU, "
            "on RPC workers and with Vulkan"
        )
