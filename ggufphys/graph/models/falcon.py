"""falcon: attention and feed-forward side by side, each behind a layer norm of its own if the file has two.

Source: llama.cpp 0c1e570 src/models/falcon.cpp, llama_model_falcon::graph.
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
        normed = b.layer_norm(x, "attn_norm", il)
        has_second = b.weight_or_none("attn_norm_2.weight", il) is not None
        q, k, v = b.qkv(b.layer_norm(x, "attn_norm_2", il) if has_second else normed, il)
        q, k = b.rope(q, pos, None, rope), b.rope(k, pos, None, rope)
        attended = attention[b.kv_cache(il)](q, k, v, il)
        attended, residual, normed = b.wanted(out_ids, il, attended, residual, normed)
        x = ops.add(ops.add(b.ffn_plain(normed, il, "gelu"), attended), residual)
    return b.head(b.layer_norm(x, "output_norm"))
