"""How does an architecture decide what each layer keeps? Small functions that a row of `table.py` combines.

A layer rule takes hyperparameters and gives a tuple of caches for each of `n_layer_all` layers, empty for a layer that
keeps nothing. Rules about attention (`full`, `windowed`, `latent`) speak of every layer; `memory.py` says which of them
a context really has.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import TypeAlias

from ggufphys.arch.caches import INDEXER, INDEXER_VALUES, LATENT, FullKV, KVCache, LayerCache, WindowKV
from ggufphys.errors import GGUFError
from ggufphys.frozen import replace
from ggufphys.hparams.hparams import HParams

Layers: TypeAlias = tuple[tuple[LayerCache, ...], ...]
LayerRule: TypeAlias = Callable[[HParams], Layers]
LayerFlags: TypeAlias = Callable[[HParams], Sequence[bool]]  # a flag for each of n_layer_all layers
WindowSize: TypeAlias = Callable[[HParams], int | None]  # None: no layer has a window


# -- what attention keeps


def full(h: HParams) -> Layers:
    """Every layer attends to the whole context.

    Source: llama.cpp 0c1e570 src/llama-model.cpp, llama_model::create_memory (default branch).
    """
    return attention(h, (False,) * h.n_layer_all, 0)


def windowed(pattern: LayerFlags, size: WindowSize, *, chunked: bool = False, needed: bool = True) -> LayerRule:
    """Layers marked by `pattern` attend to a window of `size` positions, the others to the whole context.

    Where a window is `needed`, llama.cpp dies of a size that no layer has; beside recurrent layers it does not.

    Source: llama.cpp 0c1e570 src/llama-kv-cache-iswa.cpp, llama_kv_cache_iswa ctor; src/llama-model.cpp,
    create_memory (aborts when there is a window and no layer that has it; llama_memory_hybrid_iswa does not ask).
    """

    def rule(h: HParams) -> Layers:
        n_swa = size(h)
        if n_swa is None:
            return full(h)
        flags = pattern(h)
        if needed and not any(flags):
            raise GGUFError(
                f"{h.arch}.attention.sliding_window is {n_swa}, but no layer has a window: llama.cpp aborts"
            )
        return attention(h, flags, n_swa, chunked=chunked)

    return rule


def latent(layers: LayerRule) -> LayerRule:
    """Keys alone, of one compressed head, where the file says that values are computed from them (MLA).

    Source: llama.cpp 0c1e570 src/llama-hparams.cpp, is_mla; src/llama-kv-cache.cpp, llama_kv_cache ctor (has_v).
    """

    def rule(h: HParams) -> Layers:
        return each(layers, k_only)(h) if h.is_mla else layers(h)

    return rule


def k_only(cache: KVCache) -> KVCache:
    """The cache without its values."""
    return replace(cache, n_embd_v_gqa=0, n_embd_v_max=None, kind=LATENT)


def indexer_keys(h: HParams, *, n_parts: int = 1) -> Layers:
    """A key of one head for each position, by which sparse attention selects positions; no values.

    Source: llama.cpp 0c1e570 src/llama-kv-cache-dsa.cpp, llama_kv_cache_dsa ctor; src/llama-memory-hybrid-idx.cpp.
    """
    cache = FullKV(n_embd_k_gqa=n_parts * h.indexer_head_size, n_embd_v_gqa=0, kind=INDEXER)
    return ((cache,),) * h.n_layer_all


def indexer_keys_and_values(h: HParams) -> Layers:
    """Keys of an indexer in a cache of the usual kind, whose values are allocated and not used.

    Source: llama.cpp 0c1e570 src/llama-kv-cache-msa.cpp, llama_kv_cache_msa ctor.
    """
    cache = FullKV(n_embd_k_gqa=h.indexer_head_size, n_embd_v_gqa=h.n_embd_head_v, kind=INDEXER_VALUES)
    return ((cache,),) * h.n_layer_all


def attention(h: HParams, windows: Sequence[bool], n_swa: int, *, chunked: bool = False) -> Layers:
    """Keys and values of each layer, with a window or without; V is padded to the widest of all layers.

    Source: llama.cpp 0c1e570 src/llama-hparams.cpp, n_embd_k_gqa, n_embd_v_gqa, n_embd_v_gqa_max.
    """
    k_widths, v_widths = zip(
        *(
            (n_head_kv * (h.n_embd_head_k_swa if window else h.n_embd_head_k),
             n_head_kv * (h.n_embd_head_v_swa if window else h.n_embd_head_v))
            for n_head_kv, window in zip(h.n_head_kv, windows, strict=True)
        ), strict=True,
    )  # fmt: skip
    widest = max(v_widths)

    @cache  # one object for all layers that keep the same
    def caches(k_width: int, v_width: int, window: bool) -> tuple[LayerCache, ...]:
        v_max = widest if widest != v_width else None
        if window:
            return (
                WindowKV(n_embd_k_gqa=k_width, n_embd_v_gqa=v_width, n_embd_v_max=v_max, n_swa=n_swa, chunked=chunked),
            )
        return (FullKV(n_embd_k_gqa=k_width, n_embd_v_gqa=v_width, n_embd_v_max=v_max),)

    return tuple(caches(k, v, w) for k, v, w in zip(k_widths, v_widths, windows, strict=True))


# -- which layers have a window


def every(period: int, *, dense_first: bool = False) -> LayerFlags:
    """One layer in `period` is full: the last of each group, or the first with `dense_first`.

    The file's own pattern, an array of flags or a period, takes precedence.

    Source: llama.cpp 0c1e570 src/llama-model.cpp, load_swa_pattern; src/llama-hparams.cpp, set_swa_pattern.
    """

    def pattern(h: HParams) -> Sequence[bool]:
        if isinstance(h.swa_pattern, tuple):
            return h.swa_pattern[: h.n_layer_all]
        n = period if h.swa_pattern is None else h.swa_pattern
        full_at = 0 if dense_first else n - 1
        return [il < h.n_layer and (n == 0 or il % n != full_at) for il in range(h.n_layer_all)]

    return pattern


def flags_from_file(h: HParams) -> Sequence[bool]:
    """The file must say for each layer whether it has a window."""
    if not isinstance(h.swa_pattern, tuple):
        raise GGUFError(f"{h.arch}.attention.sliding_window_pattern must be an array with a flag for each layer")
    return h.swa_pattern[: h.n_layer_all]


def all_layers(h: HParams) -> Sequence[bool]:
    """Every layer, those of the prediction head too."""
    return (True,) * h.n_layer_all


# -- how wide a window is


def size_required(h: HParams) -> int:
    """`attention.sliding_window`, which llama.cpp requires of this architecture."""
    if h.n_swa is None:
        raise GGUFError(f"key '{h.arch}.attention.sliding_window' is missing, which llama.cpp requires")
    return h.n_swa


def size_optional(h: HParams) -> int | None:
    """`attention.sliding_window`; without it, or with 0, no layer has a window."""
    return h.n_swa or None


def size_or(default: int) -> WindowSize:
    """`attention.sliding_window`, or `default` when the file does not say."""
    return lambda h: default if h.n_swa is None else h.n_swa


def size_fixed(n_swa: int) -> WindowSize:
    """`n_swa`, whatever the file says."""
    return lambda h: n_swa


def only_if(condition: Callable[[HParams], bool], size: WindowSize) -> WindowSize:
    """`size` for models that fulfil `condition`; others have no windows."""
    return lambda h: size(h) if condition(h) else None


# -- rules from rules


def each(layers: LayerRule, change: Callable[[KVCache], KVCache]) -> LayerRule:
    """The caches of keys and values that `layers` has, each of them changed."""
    return lambda h: tuple(
        tuple(change(cache) if isinstance(cache, FullKV) else cache for cache in layer) for layer in layers(h)
    )


def only(layers: LayerRule, flags: LayerFlags) -> LayerRule:
    """What the marked layers keep; the others keep nothing."""
    return lambda h: tuple(layer if flag else () for layer, flag in zip(layers(h), flags(h), strict=True))


def both(*rules: LayerRule) -> LayerRule:
    """What all the rules say, layer by layer."""
    return lambda h: tuple(
        tuple(cache for layer in layers for cache in layer) for layers in zip(*(rule(h) for rule in rules), strict=True)
    )


def nothing(h: HParams) -> Layers:
    """No layer keeps anything: encoders, and diffusion models, which read a whole sequence at once."""
    return ((),) * h.n_layer_all
