"""arctic: a dense feed-forward layer, and experts that start from what the layer began with.

Source: llama.cpp 0c1e570 src/models/arctic.cpp, llama_model_arctic::graph.
"""

from ggufphys.graph import ops
from ggufphys.graph.building.attention import attentions
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.moe import Routing, moe_ffn
from ggufphys.graph.ir import Graph
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
        q, k, v = b.qkv(b.rms(x, "attn_norm", il), il)
        q, k = b.rope(q, pos, None, rope), b.rope(k, pos, None, rope)
        x = attention[b.kv_cache(il)](q, k, v, il)
        x, residual = b.wanted(out_ids, il, x, residual)
        attended = ops.add(x, residual)
        dense = ops.add(b.ffn_gated(b.rms(attended, "ffn_norm", il), il), attended)
        experts = moe_ffn(b, b.rms(residual, "ffn_norm_exps", il), il, Routing(norm_weights=True))
        x = ops.add(experts, dense)
    return b.head(b.rms(x, "output_norm"))
