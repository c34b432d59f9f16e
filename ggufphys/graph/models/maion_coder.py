"""maion-coder: norms before and behind each half of a layer, rotations in windows alone, experts of narrower rows.

Source: llama.cpp b11739 src/models/maion-coder.cpp, llama_model_maion_coder::graph.
"""

from ggufphys.graph import ops
from ggufphys.graph.building.attention import attentions
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.moe import Routing, moe_ffn
from ggufphys.graph.ir import Graph, Tensor
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
        q, k, v = b.qkv(b.rms(x, "attn_norm", il), il)
        q, k = b.rms(q, "attn_q_norm", il), b.rms(k, "attn_k_norm", il)
        if b.has_window(il):
            q, k = b.rope(q, pos, None, rope), b.rope(k, pos, None, rope)
        x = b.linear("attn_output", il, attention[b.kv_cache(il)].mix(q, k, v, il), biased=False)
        x, residual = b.wanted(out_ids, il, x, residual)
        residual = ops.add(b.rms(x, "post_attention_norm", il), residual)
        x = b.rms(_ffn(b, b.rms(residual, "ffn_norm", il), il), "post_ffw_norm", il)
        x = ops.add(x, residual)
    return b.head(b.rms(x, "output_norm"))


def _ffn(b: Builder, x: Tensor, il: int) -> Tensor:
    """Dense, or experts that work on a narrower row, which a router chooses by the whole one."""
    router = b.weight_or_none("ffn_gate_inp.weight", il)
    if router is None:
        return b.ffn_gated(x, il)
    logits = b.mul_mat(router, x)
    narrow = ops.mul_mat(b.weight("ffn_latent_down.weight", il), x)
    n_used = b.h.n_expert_used_by_layer[il]
    experts = moe_ffn(b, narrow, il, Routing(norm_weights=True), logits=logits, n_used=n_used)
    return ops.mul_mat(b.weight("ffn_latent_up.weight", il), experts)
