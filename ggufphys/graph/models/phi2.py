"""phi2: attention and feed-forward side by side behind one layer norm, biases everywhere.

Source: llama.cpp 0c1e570 src/models/phi2.cpp, llama_model_phi2::graph.
"""

from ggufphys.graph import ops
from ggufphys.graph.building.attention import Scores, attentions
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.floats import sqrtf
from ggufphys.graph.ir import Graph
from ggufphys.graph.rope import read_rope


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    rope = read_rope(b.keys, b.h, "neox")
    x = b.inp_embd()
    pos = b.inp_pos()
    attention = attentions(b, Scores(factor=1.0))
    out_ids = b.inp_out_ids()
    for il in b.layers():
        residual = x
        normed = b.layer_norm(x, "attn_norm", il)
        q, k, v = b.qkv(normed, il)
        q, k = b.rope(q, pos, None, rope), b.rope(k, pos, None, rope)
        attended = attention[b.kv_cache(il)](ops.scale(q, 1 / sqrtf(b.h.n_embd_head_v)), k, v, il)
        attended, residual, normed = b.wanted(out_ids, il, attended, residual, normed)
        x = ops.add(ops.add(attended, b.ffn_plain(normed, il, "gelu")), residual)
    return b.head(b.layer_norm(x, "output_norm"))
