"""granite_swa: as granite, with windows, sinks, and layers that do not rotate.

Source: llama.cpp 0c1e570 src/models/granite-swa.cpp, llama_model_granite_swa::graph.
"""

from ggufphys.graph import ops
from ggufphys.graph.building.attention import Scores, attentions
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.moe import Routing, moe_ffn
from ggufphys.graph.floats import quotient, sqrtf
from ggufphys.graph.ir import Graph, Tensor
from ggufphys.graph.rope import read_rope


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    keys = b.keys
    rope = read_rope(keys, b.h, "norm")
    residual_scale = keys.real("residual_scale", 0.0)
    x = b.inp_embd(keys.real("embedding_scale", 0.0))
    pos = b.inp_pos()
    attention = attentions(b, Scores(factor=keys.real("attention.scale", 0.0) or 1 / sqrtf(b.h.n_embd_head_v)))
    out_ids = b.inp_out_ids()
    for il in b.layers():
        residual = x
        q, k, v = b.qkv(b.rms(x, "attn_norm", il), il)
        if b.h.has_rope(il):
            factors = b.rope_factors(il)
            q, k = b.rope(q, pos, factors, rope), b.rope(k, pos, factors, rope)
        x = attention[b.kv_cache(il)](q, k, v, il, sinks=b.weight_or_none("attn_sinks.weight", il))
        x, residual = b.wanted(out_ids, il, x, residual)
        residual = ops.add(_scaled(x, residual_scale), residual)
        x = _ffn(b, b.rms(residual, "ffn_norm", il), il)
        x = ops.add(_scaled(x, residual_scale), residual)
    return b.head(b.rms(x, "output_norm"), scale=quotient(1, keys.real("logit_scale")))


def _scaled(x: Tensor, factor: float) -> Tensor:
    return ops.scale(x, factor) if factor else x


def _ffn(b: Builder, x: Tensor, il: int) -> Tensor:
    """Dense, or experts and possibly one that every token uses, gate and up in one matrix."""
    if b.weight_or_none("ffn_gate_inp.weight", il) is None:
        return b.ffn_gated(x, il)
    out = moe_ffn(b, x, il, Routing(norm_weights=True))
    if b.weight_or_none("ffn_up_shexp.weight", il) is None:
        return out
    shared = b.linear("ffn_down_shexp", il, ops.glu_halves(b.linear("ffn_up_shexp", il, x), "swiglu"))
    return ops.add(out, shared)
