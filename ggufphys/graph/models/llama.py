"""llama, dense and with experts.

Source: llama.cpp 0c1e570 src/models/llama.cpp, llama_model_llama::graph.
"""

from ggufphys.arch.caches import FullKV
from ggufphys.graph import ops
from ggufphys.graph.blocks import AttentionKV, Builder
from ggufphys.graph.ir import Graph
from ggufphys.graph.moe import moe_ffn


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    h = b.h
    x = b.inp_embd()
    pos = b.inp_pos()
    attention = AttentionKV(b, FullKV(n_embd_k_gqa=0, n_embd_v_gqa=0))
    out_ids = b.inp_out_ids()
    factors = b.weight_or_none("rope_freqs.weight")
    for il in b.layers():
        residual = x
        x = b.norm_rms(x, b.weight("attn_norm.weight", il))
        q, k, v = (b.linear(name, il, x) for name in ("attn_q", "attn_k", "attn_v"))
        q = b.rope(b.heads(q, h.n_embd_head_k, h.n_head[il]), pos, factors)
        k = b.rope(b.heads(k, h.n_embd_head_k, h.n_head_kv[il]), pos, factors)
        v = b.heads(v, h.n_embd_head_v, h.n_head_kv[il])
        x = attention(q, k, v, il)
        if b.is_last(il):  # only the wanted tokens go on
            x, residual = ops.get_rows(x, out_ids), ops.get_rows(residual, out_ids)
        residual = ops.elementwise("ADD", x, residual)
        x = b.norm_rms(residual, b.weight("ffn_norm.weight", il))
        is_moe = b.weight_or_none("ffn_gate_inp.weight", il) is not None
        x = moe_ffn(b, x, il, norm_weights=True) if is_moe else b.ffn_gated(x, il)
        x = ops.elementwise("ADD", x, residual)
    x = b.norm_rms(x, b.weight("output_norm.weight"))
    x.is_output = True
    logits = b.mul_mat(b.weight_or_none("output.weight") or b.weight("token_embd.weight"), x)
    logits.is_output = True
    b.graph.expand(logits)
    return b.graph
