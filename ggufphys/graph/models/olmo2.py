"""olmo2: norms behind each half of a layer and none before; whole rows of queries and keys are normed.

Source: llama.cpp 0c1e570 src/models/olmo2.cpp, llama_model_olmo2::graph.
"""

from ggufphys.frozen import replace
from ggufphys.graph import ops
from ggufphys.graph.building.attention import attentions
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.ir import Graph
from ggufphys.graph.rope import read_rope


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    h = b.h
    full = read_rope(b.keys, h, "neox")
    rope_swa = replace(full, freq_scale=1.0, ext_factor=0.0, attn_factor=1.0)  # windows are not extended
    x = b.inp_embd()
    pos = b.inp_pos()
    attention = attentions(b)
    out_ids = b.inp_out_ids()
    for il in b.layers():
        rope = rope_swa if b.has_window(il) else full
        residual = x
        q, k, v = b.qkv_flat(x, il)
        q = b.heads(b.rms(q, "attn_q_norm", il), h.n_embd_head_k, h.n_head[il])
        k = b.heads(b.rms(k, "attn_k_norm", il), h.n_embd_head_k, h.n_head_kv[il])
        v = b.heads(v, h.n_embd_head_v, h.n_head_kv[il])
        q, k = b.rope(q, pos, None, rope), b.rope(k, pos, None, rope)
        x = attention[b.kv_cache(il)](q, k, v, il)
        x, residual = b.wanted(out_ids, il, x, residual)
        residual = ops.add(b.rms(x, "post_attention_norm", il), residual)
        x = ops.add(b.rms(b.ffn_gated(residual, il), "post_ffw_norm", il), residual)
    return b.head(b.rms(x, "output_norm"))
