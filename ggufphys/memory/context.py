"""How many bytes does llama.cpp keep from token to token: KV cache and recurrent state?

    context_bytes = sum over the tensors of all layers' caches of n_rows * row(type, width), each padded

Which tensors those are is `ggufphys/arch/`'s to say.

Source: llama.cpp 0c1e570 src/llama-kv-cache.cpp, llama_kv_cache ctor; src/llama-memory-recurrent.cpp,
llama_memory_recurrent ctor; src/llama-context.cpp, llama_init_from_model.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

from ggufphys.arch import ArchRule, BlockState, LayerCache, RecurrentState
from ggufphys.arch.cache_types import check_cache_types, kinds_of_layers
from ggufphys.context import ContextParams, pad_ctx
from ggufphys.frozen import dataclass
from ggufphys.graph.devices.backends import CPU, Backend
from ggufphys.hparams.hparams import HParams
from ggufphys.memory.terms import Term
from ggufphys.params import CPU_BUFFER, HOST, ContextType, Params


def context_terms(
    h: HParams, rule: ArchRule, context: ContextParams, home: Callable[[int], str] = lambda il: HOST
) -> tuple[Term, ...]:
    """Terms of context_bytes: layers that keep the same on the same device are one term.

    `home` names the device of a layer's cache (`Placement.kv`).

    Raises:
        ValueError: llama.cpp would refuse the context type or the cache types for this model.
    """
    return caches_by_device(h, rule, context.ctx_type, home).terms(context)


@dataclass(frozen=True, slots=True, kw_only=True)
class CachesByDevice:
    """What all layers of a model keep in contexts of one type: of how many layers each cache is, by device.

    `backends` are the devices', `check` refuses what llama.cpp refuses.
    """

    n_layers: Mapping[tuple[str, LayerCache], int]
    backends: Mapping[str, Backend]
    check: Callable[[ContextParams], None]

    def terms(self, context: ContextParams) -> tuple[Term, ...]:
        """See `context_terms`."""
        self.check(context)
        return tuple(
            _term(cache, n, context, device, self.backends.get(device, CPU))
            for (device, cache), n in self.n_layers.items()
            if any(cache.tensors(context))
        )


def caches_by_device(
    h: HParams, rule: ArchRule, ctx_type: ContextType, home: Callable[[int], str],
    backends: Mapping[str, Backend] = MappingProxyType({}),
) -> CachesByDevice:  # fmt: skip
    """What follows from where layers lie alone, whatever the context; see `context_terms` for the arguments.

    Rows are padded as the device's one of `backends` does, on the host as the CPU's.
    """
    layers = rule.layers(h, ctx_type)
    n_layers = Counter((home(il), cache) for il, layer in enumerate(layers) for cache in layer)
    windows = kinds_of_layers(h, rule)
    return CachesByDevice(n_layers=n_layers, backends=backends, check=partial(check_cache_types, h, rule, windows))


def cache_bytes(cache: LayerCache, context: ContextParams, backend: Backend) -> int:
    """Bytes of one layer's cache, all streams."""
    return sum(backend.tensor_bytes(t.nbytes, t.ggml_type, t.width) for t in cache.tensors(context))


def _term(cache: LayerCache, n_layers: int, context: ContextParams, device: str, backend: Backend) -> Term:
    return Term(
        quantity="context",
        name=cache.title(),
        nbytes=n_layers * cache_bytes(cache, context, backend),
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


def beyond_training(params: Params, n_ctx_seq: int, n_ctx_train: int) -> str:
    """What is to be said where a sequence may get longer than the model was trained for; nothing where it may not.

    Source: llama.cpp 0c1e570 src/llama-context.cpp, llama_context ctor (a warning); tools/server/server-context.cpp,
    server_context_impl::load_model (a slot's length is capped, its cache is not).
    """
    if not params.n_ctx or not n_ctx_train or n_ctx_seq <= pad_ctx(n_ctx_train):
        return ""
    return (
        f"a sequence may have {n_ctx_seq:,} tokens, the model was trained on {n_ctx_train:,}: llama.cpp warns and "
        f"runs, llama-server ends each slot at {n_ctx_train:,}"
    )
