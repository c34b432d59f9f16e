"""falcon-h1: attention and a state space layer side by side, in every layer.

Source: llama.cpp 0c1e570 src/models/falcon-h1.cpp, llama_model_falcon_h1::graph.
"""

from ggufphys.graph import ops
from ggufphys.graph.building import ssm
from ggufphys.graph.building.attention import attentions
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.recurrent import Recurrent
from ggufphys.graph.ir import Graph
from ggufphys.graph.rope import read_rope


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    rope = read_rope(b.keys, b.h, "neox")
    inp = b.inp_embd()
    pos = b.inp_pos()
    rs = Recurrent(b)
    attention = attentions(b)
    out_ids = b.inp_out_ids()
    for il in b.layers():
        q, k, v = b.qkv(b.rms(inp, "attn_norm", il), il)
        q, k = b.rope(q, pos, None, rope), b.rope(k, pos, None, rope)
        attended = b.linear("attn_output", il, attention[b.kv_cache(il)].mix(q, k, v, il), biased=False)
        x = ssm.mamba2(b, rs, b.rms(inp, "attn_norm", il), il)
        x = ops.add(attended, x)
        residual = ops.add(x, inp)
        (residual,) = b.wanted(out_ids, il, residual)
        x = b.ffn_gated(b.norm_rms(residual, b.weight("ffn_norm", il)), il)
        inp = ops.add(x, residual)
    return b.head(b.rms(inp, "output_norm"))
