"""mimo2: windows with sinks, values scaled behind attention, experts in some layers.

Source: llama.cpp 0c1e570 src/models/mimo2.cpp, llama_model_mimo2::graph.
"""

from ggufphys.graph import ops
from ggufphys.graph.building import head
from ggufphys.graph.building.attention import AttentionKV, Scores, attentions
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.moe import Routing, moe_ffn
from ggufphys.graph.floats import sqrtf
from ggufphys.graph.ir import Graph
from ggufphys.graph.rope import read_rope, read_rope_swa


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    keys = b.keys
    full = read_rope(keys, b.h, "neox")
    rope_swa = read_rope_swa(keys, full)
    value_scale = keys.real("attention.value_scale", 1.0)
    x = b.inp_embd()
    pos = b.inp_pos()
    attention = attentions(b, Scores(factor=1 / sqrtf(b.h.n_embd_head_k)))
    out_ids = b.inp_out_ids()
    for il in b.layers():
        residual = x
        rope = rope_swa if b.has_window(il) else full
        q, k, v = b.qkv(b.rms(x, "attn_norm", il), il, biased=False)
        q, k = b.rope(q, pos, None, rope), b.rope(k, pos, None, rope)
        sinks = b.weight_or_none("attn_sinks.weight", il)
        x = attention[b.kv_cache(il)](q, k, v, il, sinks=sinks, biased=False)
        if value_scale not in (0.0, 1.0):
            x = ops.scale(x, value_scale)
        x, residual = b.wanted(out_ids, il, x, residual)
        residual = ops.add(x, residual)
        x = b.rms(residual, "ffn_norm", il)
        is_moe = b.weight_or_none("ffn_gate_inp.weight", il) is not None
        routing = Routing(gating="sigmoid", norm_weights=True)
        x = ops.add(moe_ffn(b, x, il, routing) if is_moe else b.ffn_gated(x, il), residual)
    return b.head(b.rms(x, "output_norm"))


def build_head(b: Builder) -> Graph:
    """The prediction head's graph, from token ids and hidden states to logits (n_vocab, n_outputs)."""
    il, rope = b.h.n_layer, read_rope(b.keys, b.h, "neox")
    rope = read_rope_swa(b.keys, rope) if b.has_window(il) else rope
    value_scale = b.keys.real("attention.value_scale", 0.0)
    pos, out_ids = b.inp_pos(), b.inp_out_ids()
    residual = head.begin(b)
    q, k, v = b.qkv(b.norm_rms(residual, b.weight("attn_norm.weight", il)), il, biased=False)
    q, k = b.rope(q, pos, None, rope), b.rope(k, pos, None, rope)
    attention = AttentionKV(b, b.kv_cache(il), Scores(factor=1 / sqrtf(b.h.n_embd_head_k)))
    x = attention(q, k, v, il, sinks=b.weight_or_none("attn_sinks.weight", il), biased=False)
    residual = ops.add(ops.scale(x, value_scale) if value_scale else x, residual)
    x = b.ffn_gated(b.norm_rms(residual, b.weight("ffn_norm.weight", il)), il)
    return head.end_wanted(b, ops.add(x, residual), out_ids)
