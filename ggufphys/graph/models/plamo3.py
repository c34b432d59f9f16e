"""plamo3: norms before and behind each half of a layer, normed heads, one matrix for gate and up.

Source: llama.cpp 0c1e570 src/models/plamo3.cpp, llama_model_plamo3::graph.
"""

from ggufphys.graph import ops
from ggufphys.graph.building.attention import attentions
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.ir import Graph
from ggufphys.graph.rope import read_rope, read_rope_swa


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    full = read_rope(b.keys, b.h, "neox")
    rope_swa = read_rope_swa(b.keys, full)
    x = b.inp_embd()
    pos = b.inp_pos()
    attention = attentions(b)
    out_ids = b.inp_out_ids()
    for il in b.layers():
        residual = x
        rope = rope_swa if b.has_window(il) else full
        q, k, v = b.qkv(b.rms(x, "attn_norm", il), il)
        q = b.rope(b.rms(q, "attn_q_norm", il), pos, None, rope)
        k = b.rope(b.rms(k, "attn_k_norm", il), pos, None, rope)
        x = attention[b.kv_cache(il)](q, k, v, il)
        x, residual = b.wanted(out_ids, il, x, residual)
        residual = ops.add(b.norm_rms(x, b.weight("post_attention_norm", il)), residual)
        x = b.ffn_halves(b.rms(residual, "ffn_norm", il), il)
        x = ops.add(b.norm_rms(x, b.weight("post_ffw_norm", il)), residual)
    return b.head(b.rms(x, "output_norm"))
