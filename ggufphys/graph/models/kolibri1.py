"""kolibri1: norms before and behind each half of a layer, rotations in windows alone, experts beside a shared one.

The router's logits choose with a bias and weigh without.

Source: llama.cpp b11739 src/models/kolibri1.cpp, llama_model_kolibri1::graph.
"""

from ggufphys.graph import ops
from ggufphys.graph.building.attention import attentions
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.moe import moe_ffn, read_routing
from ggufphys.graph.ir import Graph
from ggufphys.graph.rope import read_rope


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    rope = read_rope(b.keys, b.h, "neox")
    routing = read_routing(b.keys, "sigmoid", weights_scale=1.0)
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
        x = b.linear("attn_output", il, attention[b.kv_cache(il)].mix(q, k, v, il), biased=False)
        x = b.rms(x, "post_attention_norm", il)
        x, residual = b.wanted(out_ids, il, x, residual)
        residual = ops.add(x, residual)
        x = b.rms(residual, "ffn_norm", il)
        logits = b.mul_mat(b.weight("ffn_gate_inp.weight", il), x)
        chosen = ops.argsort_top_k(ops.add(logits, b.weight("exp_probs_b.bias", il)), b.h.n_expert_used)
        experts = moe_ffn(b, x, il, routing, logits=logits, chosen=chosen)
        x = b.rms(ops.add(experts, b.ffn_gated(x, il, suffix="_shexp")), "post_ffw_norm", il)
        x = ops.add(x, residual)
    return b.head(b.rms(x, "output_norm"))
