"""laguna: gated heads, numbers of heads and rotations that differ in windows, experts beside a shared one.

Source: llama.cpp 0c1e570 src/models/laguna.cpp, llama_model_laguna::graph.
"""

from ggufphys.frozen import replace
from ggufphys.graph import ops
from ggufphys.graph.building.attention import attentions
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.decoder import dense_or_experts
from ggufphys.graph.building.moe import read_routing
from ggufphys.graph.ir import Graph
from ggufphys.graph.rope import read_rope, read_rope_swa


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    h = b.h
    full = read_rope(b.keys, h, "neox")
    rope_swa = replace(
        read_rope_swa(b.keys, full, freq_base=full.freq_base, own_dims=True),
        ext_factor=0.0, attn_factor=1.0, beta_fast=0.0, beta_slow=0.0, n_ctx_orig=h.n_ctx_train,
    )  # fmt: skip
    number = b.keys.integer("expert_gating_func", 0)
    ffn = dense_or_experts(b, read_routing(b.keys, None if number else "sigmoid"))
    x = b.inp_embd()
    pos = b.inp_pos()
    attention = attentions(b)
    out_ids = b.inp_out_ids()
    for il in b.layers():
        residual = x
        normed = b.rms(x, "attn_norm", il)
        rope = rope_swa if b.has_window(il) else full
        q, k, v = b.qkv(normed, il)
        q = b.rope(b.rms(q, "attn_q_norm", il), pos, None, rope)
        k = b.rope(b.rms(k, "attn_k_norm", il), pos, None, rope)
        x = attention[b.kv_cache(il)].mix(q, k, v, il)
        gate = ops.unary(b.linear("attn_gate", il, normed), "softplus")
        if gate.ne[0] == h.n_head[il]:  # one gate a head
            heads = ops.mul(b.heads(x, h.n_embd_head_v, h.n_head[il]), b.heads(gate, 1, h.n_head[il]))
            x = ops.reshape(heads, x.ne[0], x.ne[1])
        else:
            x = ops.mul(x, gate)
        x = b.linear("attn_output", il, x)
        x, residual = b.wanted(out_ids, il, x, residual)
        residual = ops.add(x, residual)
        x = ops.add(ffn(b.rms(residual, "ffn_norm", il), il), residual)
    return b.head(b.rms(x, "output_norm"))
