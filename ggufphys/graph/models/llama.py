"""llama, dense and with experts.

Source: llama.cpp 0c1e570 src/models/llama.cpp, llama_model_llama::graph.
"""

from ggufphys.graph import ops
from ggufphys.graph.building.attention import attentions
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.ir import Graph, Tensor
from ggufphys.graph.rope import read_rope


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    rope = read_rope(b.keys, b.h, "norm")
    x = b.inp_embd()
    pos = b.inp_pos()
    attention = attentions(b)
    out_ids = b.inp_out_ids()
    for il in b.layers():
        residual = x
        x = b.rms(x, "attn_norm", il)
        q, k, v = b.qkv(x, il)
        factors = b.rope_factors(il)
        q, k = b.rope(q, pos, factors, rope), b.rope(k, pos, factors, rope)
        x = attention[b.kv_cache(il)](q, k, v, il)
        x, residual = b.wanted(out_ids, il, x, residual)
        residual = ops.add(x, residual)
        x = b.rms(residual, "ffn_norm", il)
        x = ops.add(ffn(b, x, il), residual)
    return b.head(b.rms(x, "output_norm"))


def ffn(b: Builder, x: Tensor, il: int) -> Tensor:
    """Experts where a layer has a router, and none that every token uses; dense elsewhere: (E, T) to (E, T)."""
    if b.weight_or_none("ffn_gate_inp.weight", il) is None:
        return b.ffn_gated(x, il)
    from ggufphys.graph.building.moe import Routing, moe_ffn  # what most files have no need of

    return moe_ffn(b, x, il, Routing(norm_weights=True))
