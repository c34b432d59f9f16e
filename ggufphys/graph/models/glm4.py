"""glm4: norms before and behind each half of a layer, one matrix for gate and up; four positions a token with sections.

Source: llama.cpp 0c1e570 src/models/glm4.cpp, llama_model_glm4::graph.
"""

from ggufphys.graph import ops
from ggufphys.graph.building.attention import attentions
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.ir import Graph
from ggufphys.graph.rope import read_rope, read_sections


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    sections = read_sections(b.keys)
    rope = read_rope(b.keys, b.h, "mrope" if sections else "norm", sections=sections)
    x = b.inp_embd()
    pos = b.inp_pos(rope.n_pos_per_embd)
    attention = attentions(b)
    out_ids = b.inp_out_ids()
    for il in b.layers():
        residual = x
        q, k, v = b.qkv(b.rms(x, "attn_norm", il), il)
        q, k = b.rope(q, pos, None, rope), b.rope(k, pos, None, rope)
        x = attention[b.kv_cache(il)](q, k, v, il)
        x, residual = b.wanted(out_ids, il, x, residual)
        residual = ops.add(b.rms(x, "post_attention_norm", il), residual)
        x = b.ffn_halves(b.rms(residual, "ffn_norm", il), il)
        x = ops.add(b.rms(x, "post_ffw_norm", il), residual)
    return b.head(b.rms(x, "output_norm"))
