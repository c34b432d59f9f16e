"""qwen3vl and qwen3vlmoe: as qwen3 with four positions a token, and slices of an image added to the first layers.

Source: llama.cpp 0c1e570 src/models/qwen3vl.cpp, llama_model_qwen3vl::graph; src/models/qwen3vlmoe.cpp.
"""

from ggufphys.graph import ops
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.decoder import cached, dense_or_experts, rotated
from ggufphys.graph.building.moe import Routing
from ggufphys.graph.ir import Graph, Tensor
from ggufphys.graph.rope import read_rope, read_sections


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    return b.head(hidden(b))


def hidden(b: Builder) -> Tensor:
    """From token ids to the normed hidden states (E, n_outputs)."""
    rope = read_rope(b.keys, b.h, "imrope", sections=read_sections(b.keys))
    x, inp = b.inp_embd_deep()
    qkv = rotated(b, rope, b.inp_pos(rope.n_pos_per_embd), normed="before")
    attend, ffn = cached(b), dense_or_experts(b, Routing(norm_weights=True))
    out_ids = b.inp_out_ids()
    for il in b.layers():
        residual = x
        x = attend(*qkv(b.rms(x, "attn_norm", il), il), il)
        x, residual = b.wanted(out_ids, il, x, residual)
        residual = ops.add(x, residual)
        x = ops.add(ffn(b.rms(residual, "ffn_norm", il), il), residual)
        x = b.add_deepstack(x, inp, il)
    return b.rms(x, "output_norm")
