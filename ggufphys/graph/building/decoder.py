"""The usual layers of a decoder, for models that differ in their norms, rotations and feed-forward layers alone.

x + attention(norm(x)), then x + ffn(norm(x)); the last layer goes on with the wanted tokens alone.

Source: llama.cpp 0c1e570 src/models/, the loops over layers in which the models agree.
"""

from collections.abc import Callable
from typing import Literal

from ggufphys.graph import ops
from ggufphys.graph.building.attention import Scores, attentions
from ggufphys.graph.building.attention_alone import AttentionAlone
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.moe import Experts, Routing, moe_ffn
from ggufphys.graph.ir import Tensor
from ggufphys.graph.rope import Rope

Qkv = Callable[[Tensor, int], tuple[Tensor, Tensor, Tensor]]
"""From the normed stream (E, T) of a layer to queries (D, H, T), keys and values (D, K, T)."""

Ffn = Callable[[Tensor, int], Tensor]
Attend = Callable[[Tensor, Tensor, Tensor, int], Tensor]
"""From queries, keys and values of a layer to what is added to the stream (E, T)."""

Norm = Callable[[Tensor, str, int | None], Tensor]


def decoder(
    b: Builder, x: Tensor, qkv: Qkv, ffn: Ffn,
    *, norm: Norm | None = None, ffn_norm: str = "ffn_norm", scores: Scores | None = None,
    biased: bool = True, alone: AttentionAlone | None = None, last_norm: str = "output_norm",
) -> Tensor:  # fmt: skip
    """All layers, and the norm behind them: `b.rms` or another `norm`, with the gains of that name.

    `biased` is False where llama.cpp leaves out a bias behind attention. Models that keep nothing attend `alone`.
    """
    norm = norm or b.rms
    attention = attentions(b, scores)
    out_ids = b.inp_out_ids()
    for il in b.layers():
        residual = x
        q, k, v = qkv(norm(x, "attn_norm", il), il)
        x = (alone or attention[b.kv_cache(il)])(q, k, v, il, biased=biased)
        x, residual = b.wanted(out_ids, il, x, residual)
        residual = ops.add(x, residual)
        x = ops.add(ffn(norm(residual, ffn_norm, il), il), residual)
    return norm(x, last_norm, None)


def cached(b: Builder) -> Attend:
    """Attention over each layer's cache, and the projection behind it."""
    attention = attentions(b)
    return lambda q, k, v, il: attention[b.kv_cache(il)](q, k, v, il)


def rotated(
    b: Builder, rope: Rope, pos: Tensor,
    *, factors: bool = False, normed: Literal["before", "after"] | None = None, clamp: float = 0.0,
) -> Qkv:  # fmt: skip
    """Queries and keys are rotated, by the model's `factors` too, their heads normed before that or after, or not.

    Heads are normed only where the file has the gains.

    Before all that, elements are kept between -clamp and clamp unless that is 0.
    """

    def qkv(x: Tensor, il: int) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = b.qkv(x, il, clamp=clamp)
        by = b.rope_factors(il) if factors else None
        if normed == "before":
            q, k = b.rms_if_gained(q, "attn_q_norm", il), b.rms_if_gained(k, "attn_k_norm", il)
        q, k = b.rope(q, pos, by, rope), b.rope(k, pos, by, rope)
        if normed == "after":
            q, k = b.rms_if_gained(q, "attn_q_norm", il), b.rms_if_gained(k, "attn_k_norm", il)
        return q, k, v

    return qkv


def rows_normed(b: Builder, rope: Rope, pos: Tensor) -> Qkv:
    """The whole rows of queries and keys are normed, then their heads rotated."""
    h = b.h

    def qkv(x: Tensor, il: int) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = b.qkv_flat(x, il)
        q = b.heads(b.rms(q, "attn_q_norm", il), h.n_embd_head_k, h.n_head[il])
        k = b.heads(b.rms(k, "attn_k_norm", il), h.n_embd_head_k, h.n_head_kv[il])
        v = b.heads(v, h.n_embd_head_v, h.n_head_kv[il])
        return b.rope(q, pos, None, rope), b.rope(k, pos, None, rope), v

    return qkv


def dense_or_experts(
    b: Builder, routing: Routing, *, biased: bool = True, limited: bool = False, shared_always: bool = False
) -> Ffn:
    """Experts where a layer has a router, beside those that every token uses if it has any; dense elsewhere.

    `biased` is False where llama.cpp leaves out biases of dense layers. With `limited` the operands of swiglu are kept
    within limits that the file names. `shared_always`: llama.cpp does not ask whether there are weights that every
    token uses; without any their activation alone is left.
    """

    def ffn(x: Tensor, il: int) -> Tensor:
        of_experts, of_others = (b.h.swiglu_clamp_exp[il], b.h.swiglu_clamp_shexp[il]) if limited else (0.0, 0.0)
        if b.weight_or_none("ffn_gate_inp.weight", il) is None:
            return b.ffn_gated(x, il, biased=biased, limit=of_others)
        out = moe_ffn(b, x, il, routing, Experts(limit=of_experts))
        is_shared = shared_always or b.weight_or_none("ffn_up_shexp.weight", il) is not None
        return ops.add(out, b.ffn_gated(x, il, suffix="_shexp", limit=of_others)) if is_shared else out

    return ffn
