"""maple: windows, in whose layers alone queries and keys are rotated; experts whose activations are limited.

Source: llama.cpp 0c1e570 src/models/maple.cpp, llama_model_maple::graph.
"""

from ggufphys.graph import ops
from ggufphys.graph.building.attention import attentions
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.limited import limited_experts
from ggufphys.graph.building.moe import Routing, moe_ffn
from ggufphys.graph.ir import Graph
from ggufphys.graph.rope import read_rope, read_rope_swa_alike


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    rope = read_rope_swa_alike(b.keys, read_rope(b.keys, b.h, "neox"), own_dims=True)
    x = b.inp_embd()
    pos = b.inp_pos()
    attention = attentions(b)
    out_ids = b.inp_out_ids()
    for il in b.layers():
        residual = x
        q, k, v = b.qkv(b.rms(x, "attn_norm", il), il)
        q, k = b.rms(q, "attn_q_norm", il), b.rms(k, "attn_k_norm", il)
        if b.has_window(il):
            q, k = b.rope(q, pos, None, rope), b.rope(k, pos, None, rope)
        x = attention[b.kv_cache(il)](q, k, v, il, biased=False)
        x, residual = b.wanted(out_ids, il, x, residual)
        residual = ops.add(x, residual)
        x = b.rms(residual, "ffn_norm", il)
        x = moe_ffn(b, x, il, Routing(norm_weights=True), limited_experts(b.h.swiglu_clamp_exp[il]))
        x = ops.add(x, residual)
    return b.head(b.rms(x, "output_norm"))
