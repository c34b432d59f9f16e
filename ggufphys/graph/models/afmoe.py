"""afmoe: gated attention, norms before and behind each half of a layer, experts beside a shared one.

Source: llama.cpp 0c1e570 src/models/afmoe.cpp, llama_model_afmoe::graph.
"""

from ggufphys.graph import ops
from ggufphys.graph.building.attention import attentions
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.decoder import dense_or_experts
from ggufphys.graph.building.moe import read_routing
from ggufphys.graph.floats import sqrtf
from ggufphys.graph.ir import Graph
from ggufphys.graph.rope import read_rope, read_rope_swa_alike


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    full = read_rope(b.keys, b.h, "neox")
    rope_swa = read_rope_swa_alike(b.keys, full)
    number = b.keys.integer("expert_gating_func", 0)
    ffn = dense_or_experts(b, read_routing(b.keys, None if number else "sigmoid"))
    x = ops.scale(b.inp_embd(), sqrtf(b.h.n_embd))
    pos = b.inp_pos()
    attention = attentions(b)
    out_ids = b.inp_out_ids()
    for il in b.layers():
        residual = x
        normed = b.rms(x, "attn_norm", il)
        q, k, v = b.qkv(normed, il)
        q, k = b.rms(q, "attn_q_norm", il), b.rms(k, "attn_k_norm", il)
        if b.h.has_rope(il):
            rope = rope_swa if b.has_window(il) else full
            q, k = b.rope(q, pos, None, rope), b.rope(k, pos, None, rope)
        x = attention[b.kv_cache(il)].mix(q, k, v, il)
        x = ops.mul(x, ops.unary(b.linear("attn_gate", il, normed), "sigmoid"))
        x = b.rms(b.linear("attn_output", il, x), "post_attention_norm", il)
        x, residual = b.wanted(out_ids, il, x, residual)
        residual = ops.add(x, residual)
        x = b.rms(ffn(b.rms(residual, "ffn_norm", il), il), "post_ffw_norm", il)
        x = ops.add(x, residual)
    return b.head(b.rms(x, "output_norm"))
