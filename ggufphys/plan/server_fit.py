"""How long is the context that llama-server takes when nobody says? As in training, or what memory has room for.

With --fit (the default) llama-server first predicts itself, by a load without memory. What does not fit into what a
device has free, or without devices into what the machine has at all, less a margin, makes the context shorter: by a
straight line between the least context and the longest, rounded down. Where even the least does not fit, it moves
layers to main memory, which is not followed here: `ggufphys fit` finds such runs.

Source: llama.cpp 0c1e570 common/fit.cpp, common_params_fit_impl; ggml/src/ggml-cpu/ggml-cpu.cpp,
ggml_backend_cpu_device_get_memory.
"""

from collections.abc import Callable, Sequence
from typing import Final

from ggufphys.context import N_CTX_PAD
from ggufphys.frozen import dataclass, replace
from ggufphys.memory.terms import Term
from ggufphys.params import HOST, Params
from ggufphys.units import format_bytes

FIT_CTX: Final = 4096  # common/common.h, fit_params_min_ctx
MOST_CTX: Final = (1 << 31) - 1
MARGIN_BYTES: Final = 1 << 30  # common/common.h, fit_params_target
_QUANTITIES: Final = ("model", "context", "compute")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """The parameters, with the context that is taken; `note` says what was done if it is not the longest."""

    params: Params
    note: str = ""


def fitted(
    buffers: Callable[[Params], Sequence[Term]],
    params: Params,
    *,
    n_ctx_train: int,
    n_layer: int,
    n_expert: int,
    main_bytes: int,
    n_ctx_min: int = FIT_CTX,
    margins: Sequence[int] = (MARGIN_BYTES,),
) -> Fitted:
    """What --fit makes of parameters without a context; others are left as they are.

    Args:
        buffers: the terms of llama.cpp's buffers for the model.
        params: how it is run.
        n_ctx_train: how long the model's context was in training.
        n_layer: its layers.
        n_expert: its experts, 0 without any.
        main_bytes: the machine's main memory, 0 where it is unknown.
        n_ctx_min: for each stream of the cache (--fit-ctx).
        margins: what is to stay free (--fit-target), one for all devices or one for each.

    Raises:
        UnsupportedError, GGUFError, ValueError: see `buffers`.
    """
    free = [device.memory_bytes for device in params.devices] or [main_bytes]
    n_most = n_ctx_train * params.n_stream_fitted
    if params.n_ctx or not params.fit_params or not all(free) or not n_most:
        return Fitted(params=params)
    if n_most > MOST_CTX:
        raise ValueError(f"the model's context in training is {n_most:,} tokens, expected at most {MOST_CTX:,}: say -c")
    spare = [nbytes - margins[i if len(margins) > 1 else 0] for i, nbytes in enumerate(free)]

    def used(n_ctx: int) -> list[int]:
        terms = buffers(replace(params, n_ctx=n_ctx, use_mmap=False, use_mlock=False, no_alloc=True))
        return [_used(terms, name) for name in [d.name for d in params.devices] or [HOST]]

    most = used(n_most)
    if all(have >= need for have, need in zip(spare, most, strict=True)):
        return Fitted(params=params)
    n_least = n_ctx_min * params.n_stream_fitted
    where = "the devices have" if params.devices else "this machine has"
    said = f"llama-server's --fit: {format_bytes(sum(most))} and a margin are more than {where}"
    said = f"{said} ({format_bytes(sum(free))})"
    if sum(spare) >= sum(most) or n_most <= n_least:  # enough in all, unevenly divided; or short already
        return Fitted(params=params, note=f"{said}; {_MOVED}")
    target = sum(spare)
    if len(free) > 1:  # whole layers are moved: half of one is wasted on each device, or a sixth with experts
        target -= (len(free) + 1) * (_model_bytes(buffers, params) // n_layer) // (6 if n_expert else 2)
    least = sum(used(n_least))
    if target <= least:
        shortened = replace(params, n_ctx=n_least)
        return Fitted(params=shortened, note=f"{said}; the context is {n_least:,}, and still too much: {_MOVED}")
    n_ctx = n_least + (n_most - n_least) * (target - least) // (sum(most) - least)
    n_ctx = max(n_ctx - n_ctx % (N_CTX_PAD * params.n_stream_fitted), n_least)
    note = f"{said}, so the context is {n_ctx:,} instead of {n_most:,}; -c or --fit off say otherwise"
    return Fitted(params=replace(params, n_ctx=n_ctx), note=note)


_MOVED: Final = "what it then does with layers is not followed here, but `ggufphys fit` finds how to run it"


def _used(terms: Sequence[Term], name: str) -> int:
    return sum(t.nbytes for t in terms if t.device == name and t.quantity in _QUANTITIES)


def _model_bytes(buffers: Callable[[Params], Sequence[Term]], params: Params) -> int:
    terms = buffers(replace(params, use_mmap=False, use_mlock=False, no_alloc=True))
    return sum(t.nbytes for t in terms if t.device != HOST and t.quantity == "model")
