"""granite and granitemoe: factors on embeddings, scores, residuals and logits; experts beside a shared one.

Source: llama.cpp 0c1e570 src/models/granite.cpp, llama_model_granite::graph; src/models/granite-moe.cpp.
"""

from math import sqrt

from ggufphys.graph import ops
from ggufphys.graph.attention import Scores, attentions
from ggufphys.graph.blocks import Builder
from ggufphys.graph.ir import Graph, Tensor
from ggufphys.graph.moe import Routing, moe_ffn
from ggufphys.graph.rope import read_rope


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    rope = read_rope(b.keys, b.h, "norm") if b.keys.flag("rope.scaling.finetuned", True) else None
    residual_scale = b.keys.real("residual_scale", 0.0)
    x = b.inp_embd(b.keys.real("embedding_scale", 0.0))
    pos = b.inp_pos()
    attention = attentions(b, Scores(factor=b.keys.real("attention.scale", 0.0) or 1 / sqrt(b.h.n_embd_head_v)))
    out_ids = b.inp_out_ids()
    for il in b.layers():
        residual = x
        q, k, v = b.qkv(b.rms(x, "attn_norm", il), il)
        if rope is not None:
            factors = b.rope_factors(il)
            q, k = b.rope(q, pos, factors, rope), b.rope(k, pos, factors, rope)
        x = attention[b.kv_cache(il)](q, k, v, il)
        x, residual = b.wanted(out_ids, il, x, residual)
        residual = ops.add(scaled(x, residual_scale), residual)
        x = ffn(b, b.rms(residual, "ffn_norm", il), il)
        x = ops.add(scaled(x, residual_scale), residual)
    return b.head(b.rms(x, "output_norm"), scale=1 / b.keys.real("logit_scale"))


def scaled(x: Tensor, factor: float) -> Tensor:
    """X times the factor, unless that is 0."""
    return ops.scale(x, factor) if factor else x


def ffn(b: Builder, x: Tensor, il: int) -> Tensor:
    """Dense, or experts and possibly one that every token uses."""
    if b.weight_or_none("ffn_gate_inp.weight", il) is None:
        return b.ffn_gated(x, il)
    out = moe_ffn(b, x, il, Routing(norm_weights=True))
    is_shared = b.weight_or_none("ffn_gate_shexp.weight", il) is not None
    return ops.add(out, b.ffn_gated(x, il, suffix="_shexp")) if is_shared else out
