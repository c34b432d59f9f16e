"""exaone4: norms behind each half of a layer and none before; where there are windows, only they rotate.

Source: llama.cpp 0c1e570 src/models/exaone4.cpp, llama_model_exaone4::graph.
"""

from ggufphys.arch.caches import WindowKV
from ggufphys.graph import ops
from ggufphys.graph.building.attention import attentions
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.ir import Graph
from ggufphys.graph.rope import read_rope


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    rope = read_rope(b.keys, b.h, "neox")
    x = b.inp_embd()
    pos = b.inp_pos()
    attention = attentions(b)
    out_ids = b.inp_out_ids()
    all_rotate = not any(isinstance(cache, WindowKV) for cache in attention)
    for il in b.layers():
        residual = x
        q, k, v = b.qkv(x, il)
        q, k = b.rms(q, "attn_q_norm", il), b.rms(k, "attn_k_norm", il)
        if all_rotate or b.has_window(il):
            factors = b.rope_factors(il)
            q, k = b.rope(q, pos, factors, rope), b.rope(k, pos, factors, rope)
        x = attention[b.kv_cache(il)](q, k, v, il)
        x, residual = b.wanted(out_ids, il, x, residual)
        residual = ops.add(b.rms(x, "post_attention_norm", il), residual)
        x = ops.add(b.rms(b.ffn_gated(residual, il), "post_ffw_norm", il), residual)
    return b.head(b.rms(x, "output_norm"))
