"""bitnet: norms within attention and feed-forward, in front of their last products.

Source: llama.cpp 0c1e570 src/models/bitnet.cpp, llama_model_bitnet::graph.
"""

from ggufphys.graph import ops
from ggufphys.graph.building.attention import attentions
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.ir import Graph
from ggufphys.graph.rope import read_rope


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    rope = read_rope(b.keys, b.h, "neox")
    x = b.inp_embd()
    pos = b.inp_pos()
    attention = attentions(b)
    out_ids = b.inp_out_ids()
    for il in b.layers():
        residual = x
        q, k, v = b.qkv(b.rms(x, "attn_norm", il), il)
        q, k = b.rope(q, pos, None, rope), b.rope(k, pos, None, rope)
        x = attention[b.kv_cache(il)].mix(q, k, v, il)
        x = b.linear("attn_output", il, b.rms(x, "attn_sub_norm", il))
        x, residual = b.wanted(out_ids, il, x, residual)
        residual = ops.add(x, residual)
        x = b.rms(residual, "ffn_norm", il)
        up = b.linear_ffn("ffn_up", il, x)
        x = b.rms(ops.glu(b.linear_ffn("ffn_gate", il, x), up), "ffn_sub_norm", il)
        x = ops.add(b.linear("ffn_down", il, x), residual)
    return b.head(b.rms(x, "output_norm"))
