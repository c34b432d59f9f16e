"""What does llama.cpp make of the parameters for one model? Lengths padded, zeros replaced, flash attention decided.

Source: llama.cpp 0c1e570 src/llama-context.cpp, llama_context ctor, llama_init_from_model.
"""

from typing import Final

from ggufphys.builds.moves import PINNED, Rule, rules_of
from ggufphys.frozen import dataclass
from ggufphys.gguf.ggml_types import GGMLType
from ggufphys.params import POOLING_TYPES, ContextType, Params, Pooling

N_CTX_PAD: Final = 256  # llama_context pads n_ctx and n_ctx_seq to it


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextParams:
    """What llama.cpp makes of `Params` for one model: lengths padded, zeros replaced, flash attention decided.

    `v_trans` says that V is stored transposed: without flash attention, unless llama.cpp turned that off when the cache
    was there already. `unfused` are operations that llama.cpp replaces by simpler ones; with `blocks_unchecked` it does
    not ask whether heads are whole blocks of a quantised cache.
    """

    n_ctx: int
    n_ctx_seq: int
    n_batch: int
    n_ubatch: int
    n_seq_max: int
    n_outputs_max: int
    kv_unified: bool
    swa_full: bool
    type_k: GGMLType
    type_v: GGMLType
    flash_attn: bool
    v_trans: bool
    n_rs_seq: int = 0
    ctx_type: ContextType = "default"
    unfused: tuple[str, ...] = ()
    blocks_unchecked: bool = False
    embeddings: bool = False
    pooling: Pooling = "none"
    rules: frozenset[Rule] = rules_of(PINNED)  # of those that moved, the ones that hold in the build

    @property
    def n_stream(self) -> int:
        """KV buffers kept apart: one for each sequence unless the cache is unified."""
        return 1 if self.kv_unified else self.n_seq_max


def _pooled(params: Params, pooling_type: int) -> Pooling:
    """How the graph pools.

    Source: llama.cpp 0c1e570 src/llama-context.cpp, llama_context::llama_context (pooling_type).
    """
    if not params.embeddings or params.pooling == "none":
        return "none"
    if params.pooling != "model":
        return params.pooling
    return POOLING_TYPES[pooling_type] if 0 <= pooling_type < len(POOLING_TYPES) else "none"


def cache_type(name: str) -> GGMLType:
    """The type of which `CACHE_TYPES` has the name."""
    return GGMLType[name.upper()]


def pad_ctx(n_ctx: int) -> int:
    """`n_ctx` rounded up to llama.cpp's granularity of 256 cells."""
    return -(-n_ctx // N_CTX_PAD) * N_CTX_PAD


def resolve(
    params: Params,
    *,
    n_ctx_train: int,
    causal_attn: bool = True,
    flash_attn_possible: bool = True,
    rollback_possible: bool = False,
    has_encoder: bool = False,
    pooling_type: int = -1,
) -> ContextParams:
    """Apply llama.cpp's rules for lengths and batches.

    n_batch and n_ubatch are clipped before n_ctx is padded, so n_ctx = 100 gives n_ubatch = 100 and 256 cells.
    Flash attention "auto" counts as on: llama.cpp's CPU backend supports it for every model that can use it.
    `pooling_type` is what the file says of pooling, -1 for nothing.
    `n_rs_seq` counts only where recurrent states can be rolled back, `n_outputs_max` only without an encoder.

    Raises:
        ValueError: llama.cpp would refuse the combination.
    """
    n_ctx = params.n_ctx or n_ctx_train * params.n_stream_fitted
    if n_ctx == 0:
        raise ValueError("n_ctx is 0 and the model does not say how long its context was in training")
    n_batch = min(n_ctx, params.n_batch) if causal_attn else params.n_batch
    n_ubatch = min(n_batch, params.n_ubatch or params.n_batch)
    rules = rules_of(params.llama_build)
    unlimited = (has_encoder and "encoders_limited" not in rules) or "outputs_unlimited" in rules
    n_outputs_max = n_batch if unlimited else params.n_outputs_max or n_batch
    if n_outputs_max < params.n_seq_max and "outputs_unlimited" not in rules:
        raise ValueError(
            f"a batch of {n_batch} tokens (n_batch, or n_ctx if that is less) leaves room for {n_outputs_max} outputs, "
            f"expected one for each of {params.n_seq_max} sequences: llama.cpp aborts otherwise"
        )
    padded = pad_ctx(n_ctx)
    n_ctx_seq = padded if params.kv_unified else pad_ctx(padded // params.n_seq_max)
    type_v = cache_type(params.type_v)
    flash_attn = flash_attn_possible and params.flash_attn != "off"
    if not flash_attn and type_v not in (GGMLType.F32, GGMLType.F16, GGMLType.BF16):
        why = "is off" if flash_attn_possible else "llama.cpp does not use for this architecture"
        raise ValueError(f"type_v {params.type_v} (a quantized V cache) needs flash attention, which {why}")
    return ContextParams(
        n_ctx=padded if params.kv_unified else n_ctx_seq * params.n_seq_max,
        n_ctx_seq=n_ctx_seq,
        n_batch=n_batch,
        n_ubatch=n_ubatch,
        n_seq_max=params.n_seq_max,
        n_outputs_max=n_outputs_max,
        kv_unified=params.kv_unified,
        swa_full=params.swa_full,
        type_k=cache_type(params.type_k),
        type_v=type_v,
        flash_attn=flash_attn,
        v_trans=not flash_attn,
        n_rs_seq=params.n_rs_seq if rollback_possible else 0,
        ctx_type=params.ctx_type,
        embeddings=params.embeddings,
        pooling=_pooled(params, pooling_type),
        blocks_unchecked="blocks_unchecked_if_on" in rules and params.flash_attn == "on",
        rules=rules,
    )
