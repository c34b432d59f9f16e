"""plamo: attention and feed-forward side by side behind one norm.

Source: llama.cpp 0c1e570 src/models/plamo.cpp, llama_model_plamo::graph.
"""

from ggufphys.frozen import replace
from ggufphys.graph import ops
from ggufphys.graph.building.attention import attentions
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.ir import Graph
from ggufphys.graph.rope import read_rope


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    rope = replace(read_rope(b.keys, b.h, "neox"), n_dims=b.h.n_embd_head_v)
    x = b.inp_embd()
    pos = b.inp_pos()
    attention = attentions(b)
    out_ids = b.inp_out_ids()
    for il in b.layers():
        residual = x
        normed = b.rms(x, "attn_norm", il)
        q, k, v = b.qkv(normed, il)
        q, k = b.rope(q, pos, None, rope), b.rope(k, pos, None, rope)
        attended = attention[b.kv_cache(il)](q, k, v, il)
        attended, normed, residual = b.wanted(out_ids, il, attended, normed, residual)
        x = ops.add(ops.add(b.ffn_gated(normed, il), attended), residual)
    return b.head(b.rms(x, "output_norm"))
