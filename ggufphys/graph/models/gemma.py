"""gemma: embeddings scaled up, a gated GELU.

Source: llama.cpp 0c1e570 src/models/gemma.cpp, llama_model_gemma::graph.
"""

from ggufphys.graph import ops
from ggufphys.graph.building.attention import Scores, attentions
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.floats import sqrtf
from ggufphys.graph.ir import Graph
from ggufphys.graph.rope import read_rope


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    rope = read_rope(b.keys, b.h, "neox")
    x = ops.scale(b.inp_embd(), sqrtf(b.h.n_embd))
    pos = b.inp_pos()
    attention = attentions(b, Scores(factor=1.0))
    out_ids = b.inp_out_ids()
    for il in b.layers():
        residual = x
        q, k, v = b.qkv(b.rms(x, "attn_norm", il), il)
        q, k = b.rope(q, pos, None, rope), b.rope(k, pos, None, rope)
        x = attention[b.kv_cache(il)](ops.scale(q, 1 / sqrtf(b.h.n_embd_head_v)), k, v, il)
        x, residual = b.wanted(out_ids, il, x, residual)
        residual = ops.add(x, residual)
        x = ops.add(b.ffn_gated(b.rms(residual, "ffn_norm", il), il, "geglu"), residual)
    return b.head(b.rms(x, "output_norm"))
