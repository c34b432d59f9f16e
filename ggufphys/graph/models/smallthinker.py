"""smallthinker: the router reads what the layer begins with; experts with a gated ReLU.

Source: llama.cpp 0c1e570 src/models/smallthinker.cpp, llama_model_smallthinker::graph.
"""

from ggufphys.graph import ops
from ggufphys.graph.building.attention import attentions
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.moe import Experts, moe_ffn, read_routing
from ggufphys.graph.ir import Graph
from ggufphys.graph.rope import read_rope, read_rope_swa_alike


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    full = read_rope(b.keys, b.h, "neox")
    rope_swa = read_rope_swa_alike(b.keys, full)
    routing = read_routing(b.keys, norm_weights=True, weights_scale=0.0)
    x = b.inp_embd()
    pos = b.inp_pos()
    attention = attentions(b)
    out_ids = b.inp_out_ids()
    for il in b.layers():
        residual = x
        router = b.mul_mat(b.weight("ffn_gate_inp.weight", il), x)
        q, k, v = b.qkv(b.rms(x, "attn_norm", il), il)
        if b.h.has_rope(il):
            rope = rope_swa if b.has_window(il) else full
            q, k = b.rope(q, pos, None, rope), b.rope(k, pos, None, rope)
        x = attention[b.kv_cache(il)](q, k, v, il)
        x, residual, router = b.wanted(out_ids, il, x, residual, router)
        residual = ops.add(x, residual)
        x = moe_ffn(b, b.rms(residual, "ffn_norm", il), il, routing, Experts(kind="reglu"), logits=router)
        x = ops.add(x, residual)
    return b.head(b.rms(x, "output_norm"))
