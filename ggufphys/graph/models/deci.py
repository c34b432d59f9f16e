"""deci: as llama, with layers whose attention is a product alone, or that have none, or no feed-forward.

Source: llama.cpp 0c1e570 src/models/deci.cpp, llama_model_deci::graph.
"""

from ggufphys.graph import ops
from ggufphys.graph.building.attention import attentions
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.ir import Graph
from ggufphys.graph.rope import read_rope


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    h = b.h
    rope = read_rope(b.keys, h, "norm")
    x = b.inp_embd()
    pos = b.inp_pos()
    attention = attentions(b)
    out_ids = b.inp_out_ids()
    for il in b.layers():
        before = residual = x
        if h.n_head[il] > 0:
            x = b.rms(x, "attn_norm", il)
        if h.n_head[il] > 0 and h.n_head_kv[il] == 0:
            x = b.mul_mat(b.weight("attn_output.weight", il), x)
        elif h.n_head[il] > 0:
            factors = b.rope_factors(il)
            q, k, v = b.qkv(x, il)
            q, k = b.rope(q, pos, factors, rope), b.rope(k, pos, factors, rope)
            x = attention[b.kv_cache(il)](q, k, v, il)
        x, residual = b.wanted(out_ids, il, x, residual)
        if h.n_ff[il] == 0:
            x = before  # llama.cpp drops what attention gave
            continue
        if h.n_head[il] > 0:
            x = ops.add(x, residual)
        x = ops.add(b.ffn_gated(b.rms(x, "ffn_norm", il), il), x)
    return b.head(b.rms(x, "output_norm"))
