"""cohere2: as command-r, with windows in most layers; only these rotate queries and keys.

Source: llama.cpp 0c1e570 src/models/cohere2.cpp, llama_model_cohere2::graph.
"""

from ggufphys.graph import ops
from ggufphys.graph.building.attention import attentions
from ggufphys.graph.building.blocks import Builder
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
        normed = b.layer_norm(x, "attn_norm", il)
        q, k, v = b.qkv(normed, il)
        if b.has_window(il):
            factors = b.rope_factors(il)
            q, k = b.rope(q, pos, factors, rope), b.rope(k, pos, factors, rope)
        attended = attention[b.kv_cache(il)](q, k, v, il)
        attended, residual, normed = b.wanted(out_ids, il, attended, residual, normed)
        x = ops.add(ops.add(b.ffn_gated(normed, il), residual), attended)
    return b.head(b.layer_norm(x, "output_norm"), scale=b.keys.real("logit_scale", 0.0))
