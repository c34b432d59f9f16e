"""stablelm: layer norms; attention and feed-forward side by side where layers have one norm.

Source: llama.cpp 0c1e570 src/models/stablelm.cpp, llama_model_stablelm::graph.
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
        q, k, v = b.qkv(normed, il)
        if b.weight_or_none("attn_q_norm.weight", il) is not None:
            q = b.layer_norm(q, "attn_q_norm", il)
        if b.weight_or_none("attn_k_norm.weight", il) is not None:
            k = b.layer_norm(k, "attn_k_norm", il)
        q, k = b.rope(q, pos, None, rope), b.rope(k, pos, None, rope)
        x = attention[b.kv_cache(il)](q, k, v, il)
        x, residual, normed = b.wanted(out_ids, il, x, residual, normed)
        residual = ops.add(x, residual)
        is_serial = b.weight_or_none("ffn_norm.weight", il) is not None
        x = b.layer_norm(residual, "ffn_norm", il) if is_serial else normed
        x = ops.add(b.ffn_gated(x, il), residual)
    return b.head(b.layer_norm(x, "output_norm"))
