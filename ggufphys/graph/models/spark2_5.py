"""spark2_5: gated heads, windows, a gated GELU.

Source: llama.cpp 0c1e570 src/models/spark2-5.cpp, llama_model_spark2_5::graph.
"""

from ggufphys.graph import ops
from ggufphys.graph.building.attention import attentions
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.ir import Graph
from ggufphys.graph.rope import read_rope, read_rope_swa_alike


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    h = b.h
    full = read_rope(b.keys, h, "neox")
    rope_swa = read_rope_swa_alike(b.keys, full, own_dims=True)
    x = b.inp_embd()
    pos = b.inp_pos()
    attention = attentions(b)
    out_ids = b.inp_out_ids()
    for il in b.layers():
        residual = x
        normed = b.rms(x, "attn_norm", il)
        rope = rope_swa if b.has_window(il) else full
        q, k, v = b.qkv(normed, il)
        q, k = b.rope(q, pos, None, rope), b.rope(k, pos, None, rope)
        x = attention[b.kv_cache(il)].mix(q, k, v, il)
        gate = ops.unary(b.linear("attn_gate", il, normed), "sigmoid")
        heads = ops.mul(b.heads(x, h.n_embd_head_v, h.n_head[il]), b.heads(gate, 1, h.n_head[il]))
        x = b.linear("attn_output", il, ops.reshape(heads, x.ne[0], x.ne[1]))
        x, residual = b.wanted(out_ids, il, x, residual)
        residual = ops.add(x, residual)
        x = ops.add(b.ffn_gated(b.rms(residual, "ffn_norm", il), il, "geglu"), residual)
    return b.head(b.rms(x, "output_norm"))
