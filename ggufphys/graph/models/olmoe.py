"""olmoe: experts; whole rows of queries and keys are normed.

Source: llama.cpp 0c1e570 src/models/olmoe.cpp, llama_model_olmoe::graph.
"""

from ggufphys.graph import ops
from ggufphys.graph.attention import attentions
from ggufphys.graph.blocks import Builder
from ggufphys.graph.ir import Graph
from ggufphys.graph.moe import Routing, moe_ffn
from ggufphys.graph.rope import read_rope


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    h = b.h
    rope = read_rope(b.keys, h, "neox")
    x = b.inp_embd()
    pos = b.inp_pos()
    attention = attentions(b)
    out_ids = b.inp_out_ids()
    for il in b.layers():
        residual = x
        q, k, v = b.qkv_flat(b.rms(x, "attn_norm", il), il)
        q = b.heads(b.rms(q, "attn_q_norm", il), h.n_embd_head_k, h.n_head[il])
        k = b.heads(b.rms(k, "attn_k_norm", il), h.n_embd_head_k, h.n_head_kv[il])
        v = b.heads(v, h.n_embd_head_v, h.n_head_kv[il])
        q, k = b.rope(q, pos, None, rope), b.rope(k, pos, None, rope)
        x = attention[b.kv_cache(il)](q, k, v, il)
        x, residual = b.wanted(out_ids, il, x, residual)
        residual = ops.add(x, residual)
        x = ops.add(moe_ffn(b, b.rms(residual, "ffn_norm", il), il, Routing()), residual)
    return b.head(b.rms(x, "output_norm"))
