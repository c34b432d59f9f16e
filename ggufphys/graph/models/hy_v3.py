"""hy_v3: normed heads; dense layers first, then experts beside a shared one.

Source: llama.cpp 0c1e570 src/models/hy-v3.cpp, llama_model_hy_v3::graph.
"""

from ggufphys.graph import ops
from ggufphys.graph.blocks import Builder
from ggufphys.graph.decoder import cached, dense_or_experts, rotated
from ggufphys.graph.ir import Graph
from ggufphys.graph.moe import read_routing
from ggufphys.graph.rope import read_rope


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    rope = read_rope(b.keys, b.h, "neox")
    number = b.keys.integer("expert_gating_func", 0)
    ffn = dense_or_experts(b, read_routing(b.keys, None if number else "sigmoid"))
    x = b.inp_embd()
    qkv = rotated(b, rope, b.inp_pos(), factors=True, normed="before")
    attend = cached(b)
    out_ids = b.inp_out_ids()
    for il in b.layers():
        residual = ops.add(attend(*qkv(b.rms(x, "attn_norm", il), il), il), x)
        x = ops.add(ffn(b.rms(residual, "ffn_norm", il), il), residual)
    x = b.rms(x, "output_norm")
    x.is_output = True  # of all tokens, for drafts that start from them
    return b.head(ops.get_rows(x, out_ids))
