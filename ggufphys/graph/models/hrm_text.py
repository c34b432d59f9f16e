"""hrm_text: two stacks of layers, the low one run several times for each run of the high one, with a state each.

A run begins with the sum of both states and ends with its stack's new state. Norms have no gains.

Source: llama.cpp 0c1e570 src/models/hrm-text.cpp, llama_model_hrm_text::graph.
"""

from ggufphys.graph import ops
from ggufphys.graph.building.attention import AttentionKV, attentions
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.ir import Graph, Tensor
from ggufphys.graph.rope import Rope, read_rope


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    rope = read_rope(b.keys, b.h, "neox")
    n_low = b.keys.integer("hrm.l_cycles")
    high = b.inp_embd(b.keys.real("embedding_scale", 0.0))
    pos = b.inp_pos()
    attention = attentions(b)
    out_ids = b.inp_out_ids()
    low = b.weight("hrm.z_l_init")
    x = ops.add(high, low)
    for il in b.layers():
        of = b.h.weights_of[il]
        b.take_scales_of(il)  # copies of a layer are made before it gets its scales
        residual = x
        x = _attention(b, attention[b.kv_cache(il)], b.norm_rms(x, None), pos, rope, il, of)
        residual = ops.add(x, residual)
        x = ops.add(b.ffn_gated(b.norm_rms(residual, None), of, biased=False), residual)
        run, ends = b.h.runs[il]
        if ends:
            x = b.norm_rms(x, None)
            low, high = (low, x) if (run + 1) % (n_low + 1) == 0 else (x, high)
            x = ops.add(high, low)
    return b.head(ops.get_rows(high, out_ids))


def _attention(b: Builder, attention: AttentionKV, x: Tensor, pos: Tensor, rope: Rope, il: int, of: int) -> Tensor:
    """Attention with a gate on what it finds, weights of layer `of`, keys and values kept as layer `il`'s."""
    gate = b.linear("attn_gate", of, x)
    q, k, v = b.qkv(x, of)
    x = attention.mix(b.rope(q, pos, None, rope), b.rope(k, pos, None, rope), v, il)
    return b.linear("attn_output", of, ops.mul(x, ops.unary(gate, "sigmoid")), biased=False)
