"""How is the model going to be run? The same parameters serve prediction, measurement and the server.

Names and defaults are llama.cpp's. `Params` is what the user asks for; `resolve` gives what llama.cpp makes of it.
Source: llama.cpp 0c1e570 src/llama-context.cpp, llama_context ctor, llama_init_from_model; include/llama.h.
"""

from dataclasses import dataclass
from typing import Final, Literal

from ggufphys.gguf.ggml_types import GGMLType

FlashAttn = Literal["auto", "on", "off"]

N_CTX_PAD: Final = 256  # llama_context pads n_ctx and n_ctx_seq to it
MAX_SEQ: Final = 256  # LLAMA_MAX_SEQ

# llama.cpp 0c1e570 common/arg.cpp, kv_cache_types
CACHE_TYPES: Final[dict[str, GGMLType]] = {
    "f32": GGMLType.F32,
    "f16": GGMLType.F16,
    "bf16": GGMLType.BF16,
    "q8_0": GGMLType.Q8_0,
    "q4_0": GGMLType.Q4_0,
    "q4_1": GGMLType.Q4_1,
    "iq4_nl": GGMLType.IQ4_NL,
    "q5_0": GGMLType.Q5_0,
    "q5_1": GGMLType.Q5_1,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Params:
    """What llama.cpp is asked for. `n_ctx=0` means the length the model was trained on, `n_outputs_max=0` n_batch."""

    n_ctx: int = 0
    n_batch: int = 2048
    n_ubatch: int = 512
    n_seq_max: int = 1
    n_outputs_max: int = 0
    kv_unified: bool = False
    swa_full: bool = False
    type_k: str = "f16"
    type_v: str = "f16"
    flash_attn: FlashAttn = "auto"
    use_mmap: bool = True
    use_extra_bufts: bool = True  # repacked weights (CPU_REPACK, AMX); --no-repack turns it off
    n_threads: int = 0  # 0: one for each physical core

    def __post_init__(self) -> None:
        for name in ("type_k", "type_v"):
            if getattr(self, name) not in CACHE_TYPES:
                raise ValueError(f"{name} is {getattr(self, name)!r}, expected one of {', '.join(CACHE_TYPES)}")
        if self.flash_attn not in ("auto", "on", "off"):
            raise ValueError(f"flash_attn is {self.flash_attn!r}, expected auto, on or off")
        for name in ("n_ctx", "n_batch", "n_ubatch", "n_outputs_max", "n_threads"):
            if not 0 <= getattr(self, name) < 1 << 31:
                raise ValueError(f"{name} is {getattr(self, name)}, expected 0 to 2^31 - 1")
        if not 1 <= self.n_seq_max <= MAX_SEQ:
            raise ValueError(f"n_seq_max is {self.n_seq_max}, expected 1 to {MAX_SEQ} (LLAMA_MAX_SEQ)")
        if self.n_batch == 0 and self.n_ubatch == 0:
            raise ValueError("n_batch and n_ubatch cannot both be zero")
        if 0 < self.n_outputs_max < self.n_seq_max:
            raise ValueError(
                f"n_outputs_max is {self.n_outputs_max}, expected at least n_seq_max = {self.n_seq_max}: "
                "llama.cpp aborts otherwise"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextParams:
    """What llama.cpp makes of `Params` for one model: lengths padded, zeros replaced, flash attention decided."""

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

    @property
    def n_stream(self) -> int:
        """KV buffers kept apart: one for each sequence unless the cache is unified."""
        return 1 if self.kv_unified else self.n_seq_max


def pad_ctx(n_ctx: int) -> int:
    """`n_ctx` rounded up to llama.cpp's granularity of 256 cells."""
    return -(-n_ctx // N_CTX_PAD) * N_CTX_PAD


def resolve(
    params: Params, *, n_ctx_train: int, causal_attn: bool = True, flash_attn_possible: bool = True
) -> ContextParams:
    """Apply llama.cpp's rules for lengths and batches.

    n_batch and n_ubatch are clipped before n_ctx is padded, so n_ctx = 100 gives n_ubatch = 100 and 256 cells.
    Flash attention "auto" counts as on: llama.cpp's CPU backend supports it for every model that can use it.

    Raises:
        ValueError: llama.cpp would refuse the combination.
    """
    n_ctx = params.n_ctx or n_ctx_train
    if n_ctx == 0:
        raise ValueError("n_ctx is 0 and the model does not say how long its context was in training")
    n_batch = min(n_ctx, params.n_batch) if causal_attn else params.n_batch
    n_ubatch = min(n_batch, params.n_ubatch or params.n_batch)
    n_outputs_max = params.n_outputs_max or n_batch
    if n_outputs_max < params.n_seq_max:
        raise ValueError(
            f"a batch of {n_batch} tokens (n_batch, or n_ctx if that is less) leaves room for {n_outputs_max} outputs, "
            f"expected one for each of {params.n_seq_max} sequences: llama.cpp aborts otherwise"
        )
    padded = pad_ctx(n_ctx)
    n_ctx_seq = padded if params.kv_unified else pad_ctx(padded // params.n_seq_max)
    type_v = CACHE_TYPES[params.type_v]
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
        type_k=CACHE_TYPES[params.type_k],
        type_v=type_v,
        flash_attn=flash_attn,
    )
