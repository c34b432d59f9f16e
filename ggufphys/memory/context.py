"""How many bytes does llama.cpp keep from token to token: KV cache and recurrent state?

    context_bytes = sum over layers of n_stream * n_cells * (row(type_k, n_embd_k_gqa) + row(type_v, n_embd_v_gqa))

Source: llama.cpp 0c1e570 src/llama-kv-cache.cpp, llama_kv_cache ctor; src/llama-context.cpp, llama_init_from_model.
"""

from collections import Counter
from collections.abc import Callable, Iterable

from ggufphys.arch import ArchRule, FullKV, LayerCache, row_bytes
from ggufphys.gguf import SIZES, GGMLType
from ggufphys.hparams import HParams
from ggufphys.memory.backends import CPU, Backend, backend_of
from ggufphys.memory.terms import Term
from ggufphys.params import CPU_BUFFER, HOST, ContextParams


def context_terms(
    h: HParams, rule: ArchRule, context: ContextParams, home: Callable[[int], str] = lambda il: HOST
) -> tuple[Term, ...]:
    """Terms of context_bytes: layers that keep the same on the same device are one term.

    `home` names the device of a layer's cache (`Placement.kv`).

    Raises:
        ValueError: llama.cpp would refuse the cache types for this model.
    """
    caches = Counter((home(il), cache) for il, layer in enumerate(rule.layers(h)) for cache in layer)
    check_cache_types((cache for _, cache in caches), h, context)
    n_embd_v_max = max((cache.n_embd_v_gqa for _, cache in caches), default=0)
    return tuple(_term(cache, n_layers, n_embd_v_max, context, device) for (device, cache), n_layers in caches.items())


def cache_bytes(cache: LayerCache, n_embd_v_max: int, context: ContextParams, backend: Backend = CPU) -> int:
    """Bytes of one layer's cache, all streams.

    Without flash attention V is stored transposed, and layers of different width are all padded to the widest.
    """
    n_embd_v = cache.n_embd_v_gqa if context.flash_attn else n_embd_v_max
    n_rows = context.n_stream * cache.n_cells(context)
    return sum(
        backend.tensor_bytes(n_rows * row_bytes(ggml_type, width), ggml_type, width)
        for ggml_type, width in ((context.type_k, cache.n_embd_k_gqa), (context.type_v, n_embd_v))
    )


def check_cache_types(caches: Iterable[LayerCache], h: HParams, context: ContextParams) -> None:
    """Refuse what llama.cpp refuses: with flash attention each head must be whole blocks of a quantised type.

    Raises:
        ValueError: naming the type and the head size.
    """
    if not context.flash_attn:
        return
    windows = any(type(cache) is not FullKV for cache in caches)
    sizes = {"K": {h.n_embd_head_k}, "V": {h.n_embd_head_v}}
    if windows:
        sizes["K"].add(h.n_embd_head_k_swa)
        sizes["V"].add(h.n_embd_head_v_swa)
    for name, ggml_type in (("K", context.type_k), ("V", context.type_v)):
        for n_embd_head in sizes[name]:
            if n_embd_head % SIZES[ggml_type].block_size:
                raise ValueError(
                    f"{name} cache type {ggml_type.name.lower()} has blocks of {SIZES[ggml_type].block_size} elements, "
                    f"which do not divide this model's head size of {n_embd_head}"
                )


def _term(cache: LayerCache, n_layers: int, n_embd_v_max: int, context: ContextParams, device: str) -> Term:
    n_embd_v = cache.n_embd_v_gqa if context.flash_attn else n_embd_v_max
    k, v = _row_text(context.type_k, cache.n_embd_k_gqa), _row_text(context.type_v, n_embd_v)
    return Term(
        quantity="context",
        name=_name(cache),
        nbytes=n_layers * cache_bytes(cache, n_embd_v_max, context, CPU if device == HOST else backend_of(device)),
        buffer=CPU_BUFFER if device == HOST else device,
        formula=f"{n_layers} layers x {context.n_stream} streams x {cache.n_cells(context):,} cells x (K {k} + V {v})",
        source="src/llama-kv-cache.cpp, llama_kv_cache ctor",
        device=device,
    )


def _name(cache: LayerCache) -> str:
    return "KV cache" if type(cache) is FullKV else f"KV cache, window of {getattr(cache, 'n_swa', 0):,}"


def _row_text(ggml_type: GGMLType, n_elements: int) -> str:
    return f"{n_elements} {ggml_type.name.lower()} = {row_bytes(ggml_type, n_elements):,} B"
