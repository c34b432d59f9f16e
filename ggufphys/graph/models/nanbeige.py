"""nanbeige: as llama, through all layers several times; each pass but the last may end with the output's norm.

Source: llama.cpp 0c1e570 src/models/nanbeige.cpp, llama_model_nanbeige::graph.
"""

from ggufphys.graph import ops
from ggufphys.graph.attention import attentions
from ggufphys.graph.blocks import Builder
from ggufphys.graph.ir import Graph
from ggufphys.graph.rope import read_rope


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    rope = read_rope(b.keys, b.h, "norm")
    normed = not b.keys.flag("skip_loop_final_norm", False)
    x = b.inp_embd()
    pos = b.inp_pos()
    attention = attentions(b)
    out_ids = b.inp_out_ids()
    for il in b.layers():
        of = b.h.weights_of[il]
        residual = x
        q, k, v = b.qkv(b.rms(x, "attn_norm", of), of)
        factors = b.rope_factors(of)
        q, k = b.rope(q, pos, factors, rope), b.rope(k, pos, factors, rope)
        x = b.linear("attn_output", of, attention[b.kv_cache(il)].mix(q, k, v, il))
        x, residual = b.wanted(out_ids, il, x, residual)
        residual = ops.add(x, residual)
        x = ops.add(b.ffn_gated(b.rms(residual, "ffn_norm", of), of), residual)
        _, ends = b.h.runs[il]
        if normed and ends and not b.is_last(il):
            x = b.rms(x, "output_norm")
    return b.head(b.rms(x, "output_norm"))
