"""In which types may caches keep keys and values of a model?

Source: llama.cpp 0c1e570 src/llama-context.cpp, llama_init_from_model.
"""

from collections.abc import Collection

from ggufphys.arch.caches import WindowKV
from ggufphys.arch.table import ArchRule
from ggufphys.context import ContextParams
from ggufphys.gguf import SIZES
from ggufphys.hparams.hparams import HParams


def kinds_of_layers(h: HParams, rule: ArchRule) -> frozenset[bool]:
    """Whether there are layers with windows, and without."""
    return frozenset(any(isinstance(cache, WindowKV) for cache in layer) for layer in rule.layers(h)[: h.n_layer])


def check_cache_types(h: HParams, rule: ArchRule, windows: Collection[bool], context: ContextParams) -> None:
    """Refuse the types that llama.cpp refuses for this model; `windows` says which kinds of layers it has.

    Compressed rows hold keys and values in one, so in one type; with flash attention each head must be whole blocks of
    a quantised type.

    Raises:
        ValueError: with the reason.
    """
    if rule.needs_same_types(h) and context.type_k is not context.type_v:
        raise ValueError(
            f"K cache type {context.type_k.name.lower()}, V cache type {context.type_v.name.lower()}: this model keeps "
            "keys and values in one compressed row and does not support different types"
        )
    if context.v_trans or context.blocks_unchecked:
        return
    for name, ggml_type, sizes in (
        ("K", context.type_k, {h.n_embd_head_k_swa if window else h.n_embd_head_k for window in windows}),
        ("V", context.type_v, {h.n_embd_head_v_swa if window else h.n_embd_head_v for window in windows}),
    ):
        block_size = SIZES[ggml_type].block_size
        for n_embd_head in sizes:
            if n_embd_head % block_size:
                raise ValueError(
                    f"{name} cache type {ggml_type.name.lower()} has blocks of {block_size} elements, "
                    f"which do not divide this model's head size of {n_embd_head}"
                )


__all__ = ["check_cache_types", "kinds_of_layers"]
