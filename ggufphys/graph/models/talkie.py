"""talkie: norms without gains, and the normed embeddings again in every layer.

Source: llama.cpp 0c1e570 src/models/talkie.cpp, llama_model_talkie::graph.
"""

from ggufphys.graph import ops
from ggufphys.graph.building.attention import attentions
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.ir import Graph
from ggufphys.graph.rope import read_rope


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    rope = read_rope(b.keys, b.h, "neox")
    embedded = x = b.norm_rms(b.inp_embd(), None)
    pos = b.inp_pos()
    attention = attentions(b)
    out_ids = b.inp_out_ids()
    for il in b.layers():
        residual, skipped = x, embedded
        q, k, v = b.qkv(b.norm_rms(x, None), il)
        q, k = b.rope(q, pos, None, rope), b.rope(k, pos, None, rope)
        x = attention[b.kv_cache(il)](b.rms(q, "attn_q_norm", il), b.norm_rms(k, None), v, il)
        x, residual, skipped = b.wanted(out_ids, il, x, residual, skipped)
        residual = ops.add(x, residual)
        x = ops.add(b.ffn_gated(b.norm_rms(residual, None), il), residual)
        x = ops.add(x, ops.mul(skipped, b.weight("layer_output_scale.weight", il)))
    return b.head(b.norm_rms(x, None), scale=b.keys.real("logit_scale"))
