"""phi3 and phimoe: one matrix for gate and up, factors of frequencies for long contexts; its window is switched off.

Source: llama.cpp 0c1e570 src/models/phi3.cpp, llama_model_phi3::graph; src/models/phimoe.cpp.
"""

from ggufphys.graph import ops
from ggufphys.graph.building.attention import Scores, attentions
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.moe import Routing, moe_ffn
from ggufphys.graph.floats import sqrtf
from ggufphys.graph.ir import Graph
from ggufphys.graph.rope import read_rope


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    rope = read_rope(b.keys, b.h, "neox")
    x = b.inp_embd()
    pos = b.inp_pos()
    attention = attentions(b, Scores(factor=1.0))
    out_ids = b.inp_out_ids()
    for il in b.layers():
        residual = x
        factors = b.rope_factors(il)
        q, k, v = b.qkv(b.rms(x, "attn_norm", il), il)
        q, k = b.rope(q, pos, factors, rope), b.rope(k, pos, factors, rope)
        x = attention[b.kv_cache(il)](ops.scale(q, 1 / sqrtf(b.h.n_embd_head_v)), k, v, il)
        x, residual = b.wanted(out_ids, il, x, residual)
        residual = ops.add(x, residual)
        x = b.rms(residual, "ffn_norm", il)
        is_moe = b.weight_or_none("ffn_gate_inp.weight", il) is not None
        x = moe_ffn(b, x, il, Routing(norm_weights=True)) if is_moe else b.ffn_halves(x, il)
        x = ops.add(residual, x)
    return b.head(b.rms(x, "output_norm"))
