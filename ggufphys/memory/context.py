"""How many bytes does llama.cpp keep from token to token: KV cache and recurrent state?

    context_bytes = sum over the tensors of all layers' caches of n_rows * row(type, width), each padded

Which tensors those are is `ggufphys/arch/`'s to say.

Source: llama.cpp 0c1e570 src/llama-kv-cache.cpp, llama_kv_cache ctor; src/llama-memory-recurrent.cpp,
llama_memory_recurrent ctor; src/llama-context.cpp, llama_init_from_model.
"""

from collections import Counter
from collections.abc import Callable

from ggufphys.arch import ArchRule, BlockState, LayerCache, RecurrentState, WindowKV
from ggufphys.gguf import SIZES
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
        ValueError: llama.cpp would refuse the context type or the cache types for this model.
    """
    layers = rule.layers(h, context.ctx_type)
    check_cache_types(h, rule, context)
    caches = Counter((home(il), cache) for il, layer in enumerate(layers) for cache in layer)
    return tuple(
        _term(cache, n_layers, context, device)
        for (device, cache), n_layers in caches.items()
        if any(cache.tensors(context))
    )


def cache_bytes(cache: LayerCache, context: ContextParams, backend: Backend = CPU) -> int:
    """Bytes of one layer's cache, all streams."""
    return sum(backend.tensor_bytes(t.nbytes, t.ggml_type, t.width) for t in cache.tensors(context))


def check_cache_types(h: HParams, rule: ArchRule, context: ContextParams) -> None:
    """Refuse the types that llama.cpp refuses for this model.

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
    if context.v_trans:
        return
    windows = {any(isinstance(cache, WindowKV) for cache in layer) for layer in rule.layers(h)[: h.n_layer]}
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


def _term(cache: LayerCache, n_layers: int, context: ContextParams, device: str) -> Term:
    return Term(
        quantity="context",
        name=cache.title(),
        nbytes=n_layers * cache_bytes(cache, context, CPU if device == HOST else backend_of(device)),
        buffer=CPU_BUFFER if device == HOST else device,
        formula=f"{n_layers} layers x {cache.layout(context)}",
        source=_source(cache),
        device=device,
    )


def _source(cache: LayerCache) -> str:
    if isinstance(cache, RecurrentState):
        return "src/llama-memory-recurrent.cpp, llama_memory_recurrent ctor"
    if isinstance(cache, BlockState):
        return "src/llama-kv-cache-dsv4.cpp, llama_dsv4_comp_state ctor"
    return "src/llama-kv-cache.cpp, llama_kv_cache ctor"
