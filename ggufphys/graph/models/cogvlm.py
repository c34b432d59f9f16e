"""cogvlm: weights of their own for images; here the graph for text.

Source: llama.cpp 0c1e570 src/models/cogvlm.cpp, llama_model_cogvlm::graph.
"""

from ggufphys.graph import ops
from ggufphys.graph.building.attention import attentions
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.ir import Graph
from ggufphys.graph.rope import Rope


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    d = b.h.n_embd_head_v
    rope = Rope(n_dims=d, mode="neox", n_ctx_orig=0, freq_base=10000.0, beta_fast=0.0, beta_slow=0.0)
    x = b.inp_embd(mixed=False)
    pos = b.inp_pos()
    attention = attentions(b)
    for il in b.layers():
        residual = x
        q, k, v = b.qkv(b.rms(x, "attn_norm", il), il)
        q, k = b.rope(q, pos, None, rope), b.rope(k, pos, None, rope)
        residual = ops.add(attention[b.kv_cache(il)](q, k, v, il, biased=False), residual)
        x = ops.add(b.ffn_gated(b.rms(residual, "ffn_norm", il), il), residual)
    return b.head(b.rms(x, "output_norm"))
