"""What do architectures with sparse or compressed attention keep beside their keys?

Source: llama.cpp 0c1e570 src/llama-kv-cache-dsa.cpp, -dsa-iswa.cpp, -msa.cpp, -dsv4.cpp;
src/llama-memory-hybrid-idx.cpp; src/llama-model.cpp, llama_model::create_memory.
"""

from collections.abc import Sequence
from typing import Final

from ggufphys.arch.caches import INDEXER, LATENT, BlockKV, BlockState, FullKV, IndexerF32, LayerCache
from ggufphys.arch.contexts import trunk, with_indexer, with_kv_heads, without_kv_heads
from ggufphys.arch.rules import (
    LayerFlags,
    LayerRule,
    Layers,
    all_layers,
    both,
    each,
    flags_from_file,
    full,
    indexer_keys,
    indexer_keys_and_values,
    k_only,
    latent,
    only,
    size_optional,
    size_required,
    windowed,
)
from ggufphys.arch.states import kda
from ggufphys.errors import GGUFError
from ggufphys.frozen import replace
from ggufphys.hparams.hparams import HParams

N_STREAMS: Final = 4  # of hyper-connections: ggml_dsv4_hc_comb asserts it

# -- sparse attention: an indexer picks the positions that are attended to


def dsa(layers: LayerRule, indexed: LayerFlags) -> LayerRule:
    """A cache, and indexer keys in the marked layers.

    Source: llama.cpp 0c1e570 src/llama-kv-cache-dsa.cpp.
    """
    return both(trunk(layers), only(indexer_keys, indexed))


def dsa_optional(layers: LayerRule, indexed: LayerFlags) -> LayerRule:
    """As `dsa`, for every layer; without an indexer if `attention.indexer.top_k` is 0 or missing.

    Source: llama.cpp 0c1e570 src/llama-model.cpp, create_memory (LLM_ARCH_HY_V4).
    """
    return lambda h: (both(layers, only(indexer_keys, indexed)) if h.indexer_top_k else layers)(h)


def dsa_windowed(layers: LayerRule, indexed: LayerFlags) -> LayerRule:
    """A cache with windows, and whole contexts of indexer keys, in layers with a window as wide as the layer's head.

    Source: llama.cpp 0c1e570 src/llama-kv-cache-dsa-iswa.cpp; src/models/dots3note.cpp, graph (cpy_k of layers without
    a window); src/llama-kv-cache.cpp, build_input_k_rot (divides by what doubles until it is 0 where no keys are kept).

    Raises:
        GGUFError: indexers of which llama.cpp dies.
    """

    def keys(h: HParams) -> Layers:
        wide = FullKV(n_embd_k_gqa=h.n_embd_head_k_swa, n_embd_v_gqa=0, kind=INDEXER)
        return tuple(
            (wide,) if window else layer for window, layer in zip(flags_from_file(h), indexer_keys(h), strict=True)
        )

    def rule(h: HParams) -> Layers:
        flags, windows = indexed(h)[: h.n_layer], flags_from_file(h)
        lacking = [il for il, has_indexer in enumerate(flags) if not (has_indexer or windows[il])]
        if lacking or not any(flags):
            found = f"layer {lacking[0]} has neither a window nor an indexer" if lacking else "no layer has an indexer"
            raise GGUFError(f"{h.arch}.attention.indexer.types: {found}: llama.cpp ends the process")
        return both(trunk(layers), only(keys, indexed))(h)

    return rule


def msa(h: HParams) -> Layers:
    """A cache in every layer, an indexer's beside it in all but the leading dense ones.

    Source: llama.cpp 0c1e570 src/llama-kv-cache-msa.cpp; src/llama-model.cpp, create_memory (LLM_ARCH_MINIMAX_M3).
    """
    return both(full, only(indexer_keys_and_values, _behind_dense_layers))(h)


def msa_in_f32(h: HParams) -> Layers:
    """As `msa` in older builds, where indexers' keys were in F32 and had no values beside them."""
    keys = IndexerF32(n_embd_k_gqa=h.indexer_head_size, n_embd_v_gqa=0, kind=INDEXER)
    return both(full, only(lambda h: ((keys,),) * h.n_layer_all, _behind_dense_layers))(h)


def _behind_dense_layers(h: HParams) -> Sequence[bool]:
    return [il >= h.n_layer_dense_lead for il in range(h.n_layer_all)]


def pooled_keys(h: HParams) -> Layers:
    """Indexer keys of which a pool of positions is scored together: key, gate and pooled value."""
    return indexer_keys(h, n_parts=3 if h.indexer_kpool else 1)


def keys_and_pools(h: HParams) -> Layers:
    """Indexer keys with room for that of a block of positions, where there are blocks.

    Source: llama.cpp b11434 src/models/qwen4exp.cpp, load_arch_hparams.

    Raises:
        GGUFError: hyperparameters that builds with one size of blocks refuse.
    """
    ratios = h.compress_ratios if isinstance(h.compress_ratios, tuple) else (h.compress_ratios,)
    sizes = sorted({ratio for ratio in ratios if ratio})
    if len(sizes) > 1:
        raise GGUFError(
            f"{h.arch}.attention.compress_ratios has blocks of {', '.join(map(str, sizes))} cells, expected one size: "
            "this llama.cpp refuses the file"
        )
    if sizes and (sizes[0] == 1 or h.indexer_top_k % sizes[0]):
        raise GGUFError(
            f"{h.arch}.attention.compress_ratios has blocks of {sizes[0]} cells, expected 2 or more and a divisor of "
            f"attention.indexer.top_k, {h.indexer_top_k}: this llama.cpp refuses the file"
        )
    return indexer_keys(h, n_parts=2 if sizes else 1)


def delta_and_pooled_dsa(h: HParams) -> Layers:
    """Recurrent layers, and compressed attention with pooled indexer keys.

    Source: llama.cpp 0c1e570 src/llama-model.cpp, create_memory (LLM_ARCH_GLM5_NEXT); src/models/glm5-next.cpp,
    load_arch_hparams, build_dsa_layer (what it asserts).

    Raises:
        GGUFError: hyperparameters of which llama.cpp dies.
    """
    _check_streams(h)
    if h.indexer_kpool < 2 or h.indexer_top_k % h.indexer_kpool:
        raise GGUFError(
            f"{h.arch}.attention.indexer.kpool is {h.indexer_kpool}, expected 2 or more and a divisor of "
            f"attention.indexer.top_k, {h.indexer_top_k}: llama.cpp aborts"
        )
    own = [own for il, own in enumerate(with_indexer(h)[: h.n_layer]) if h.n_head_kv[il]]
    if own and not own[0]:
        raise GGUFError(
            f"{h.arch}.attention.indexer.types gives the first layer with attention no indexer, and there is none "
            "before it to share: llama.cpp aborts"
        )
    return both(
        only(latent(full), with_kv_heads),
        only(only(pooled_keys, with_kv_heads), with_indexer),
        only(kda, without_kv_heads),
    )(h)


# -- DeepSeek V4: a window of raw keys, and blocks of positions compressed into one row each

FINE_RATIO: Final = 4  # DSV4_CSA_RATIO, with an indexer
COARSE_RATIO: Final = 128  # DSV4_HCA_RATIO


def compressed(h: HParams) -> Layers:
    """Raw keys of a window in every layer, compressed rows by `attention.compress_ratios`; one stream a sequence.

    Source: llama.cpp 0c1e570 src/llama-kv-cache-dsv4.cpp, llama_kv_cache_dsv4 ctor; src/llama-kv-cache.cpp,
    build_input_k_rot (which divides by zero for a cache of no layer that is to be rotated).

    Raises:
        GGUFError: hyperparameters of which llama.cpp dies.
    """
    _check_streams(h)
    rotated = (FINE_RATIO, COARSE_RATIO) if h.n_embd_head_k == h.indexer_head_size else (FINE_RATIO,)
    for ratio in rotated:
        if ratio not in _ratios(h)[: h.n_layer]:
            raise GGUFError(
                f"{h.arch}.attention.compress_ratios has no layer of {ratio}, whose cache llama.cpp rotates: "
                "it divides by zero"
            )
    raw = each(each(window, k_only), lambda cache: replace(cache, per_sequence=True))
    return both(raw, _blocks, trunk(_block_states))(h)


def window(h: HParams) -> Layers:
    """Every layer has a window; this is all that a draft context keeps, values included."""
    return windowed(all_layers, size_required)(h)


def _check_streams(h: HParams) -> None:
    if h.hc_mult != N_STREAMS:
        raise GGUFError(f"{h.arch}.hyper_connection.count is {h.hc_mult}, expected {N_STREAMS}: llama.cpp aborts")


def _blocks(h: HParams) -> Layers:
    return tuple(
        tuple(
            BlockKV(n_embd_k_gqa=width, n_embd_v_gqa=0, kind=kind, ratio=ratio, per_sequence=True)
            for kind, width in _block_rows(h, il, ratio)
        )
        for il, ratio in enumerate(_ratios(h))
    )


def _block_rows(h: HParams, il: int, ratio: int) -> Sequence[tuple[str, int]]:
    rows = [(LATENT, h.n_head_kv[il] * h.n_embd_head_k_swa)] if ratio in (FINE_RATIO, COARSE_RATIO) else []
    return [*rows, (INDEXER, h.indexer_head_size)] if ratio == FINE_RATIO else rows


def _block_states(h: HParams) -> Layers:
    def states(ratio: int) -> tuple[LayerCache, ...]:
        if ratio == COARSE_RATIO:
            return (BlockState(n_embd_state=h.n_embd_head_k_swa, state_size=ratio, ratio=ratio),)
        if ratio != FINE_RATIO:
            return ()
        return tuple(  # two blocks overlap
            BlockState(n_embd_state=2 * width, state_size=2 * ratio, ratio=ratio)
            for width in (h.n_embd_head_k_swa, h.indexer_head_size)
        )

    return tuple(states(ratio) for ratio in _ratios(h))


def _ratios(h: HParams) -> Sequence[int]:
    ratios = h.compress_ratios
    if isinstance(ratios, tuple):
        return (*ratios[: h.n_layer_all], *(0,) * (h.n_layer_all - len(ratios)))
    return (ratios or 0,) * h.n_layer_all


def draft_ring(h: HParams) -> Layers:
    """A draft model made of DeepSeek V4's blocks keeps windows in all layers, others those that the file marks."""
    return window(h) if h.hc_mult else windowed(flags_from_file, size_optional)(h)
