"""cohere2moe: as cohere2, with experts and half of what they and a shared one give.

Source: llama.cpp 0c1e570 src/models/cohere2moe.cpp, llama_model_cohere2moe::graph.
"""

from ggufphys.graph import ops
from ggufphys.graph.building import head
from ggufphys.graph.building.attention import attentions
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.moe import Routing, moe_ffn, read_routing
from ggufphys.graph.ir import Graph, Tensor
from ggufphys.graph.rope import read_rope


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    keys = b.keys
    rope = read_rope(keys, b.h, "norm")
    number = keys.integer("expert_gating_func", 0)
    routing = read_routing(keys, None if number else "sigmoid")
    norm = b.rms if b.norm_rms_eps else b.layer_norm
    x = b.inp_embd()
    pos = b.inp_pos()
    attention = attentions(b)
    out_ids = b.inp_out_ids()
    for il in b.layers():
        residual = x
        normed = norm(x, "attn_norm", il)
        q, k, v = b.qkv(normed, il)
        if b.has_window(il) or b.weight_or_none("ffn_gate_inp.weight", il) is None:
            factors = b.rope_factors(il)
            q, k = b.rope(q, pos, factors, rope), b.rope(k, pos, factors, rope)
        attended = attention[b.kv_cache(il)](q, k, v, il)
        attended, residual, normed = b.wanted_early(out_ids, il, attended, residual, normed)
        x = ops.add(ops.add(_ffn(b, normed, il, routing), residual), attended)
    return b.head(b.wanted_late(norm(x, "output_norm", None), out_ids), scale=keys.real("logit_scale"))


def build_head(b: Builder) -> Graph:
    """The prediction head's graph, from token ids and hidden states to logits (n_vocab, n_outputs)."""
    il, keys, rope = b.h.n_layer, b.keys, read_rope(b.keys, b.h, "norm")
    routing = read_routing(keys, None if keys.integer("expert_gating_func", 0) else "sigmoid")
    norm = b.norm_rms if b.norm_rms_eps else b.norm
    pos, out_ids = b.inp_pos(), b.inp_out_ids()
    residual = head.begin(b, norm)
    normed = norm(residual, b.weight("attn_norm.weight", il))
    q, k, v = b.qkv(normed, il)
    factors = b.rope_factors(il)
    q, k = b.rope(q, pos, factors, rope), b.rope(k, pos, factors, rope)
    attended = attentions(b)[b.kv_cache(il)](q, k, v, il)
    x = head.normed(b, ops.add(ops.add(_ffn(b, normed, il, routing), residual), attended), norm)
    x.is_output = True
    return head.end(b, ops.get_rows(x, out_ids), scale=keys.real("logit_scale"))


def _ffn(b: Builder, x: Tensor, il: int, routing: Routing) -> Tensor:
    if b.weight_or_none("ffn_gate_inp.weight", il) is None:
        return b.ffn_gated(x, il)
    out = moe_ffn(b, x, il, routing)
    if b.weight_or_none("ffn_up_shexp.weight", il) is None:
        return out
    return ops.scale(ops.add(out, b.ffn_gated(x, il, suffix="_shexp")), 0.5)
