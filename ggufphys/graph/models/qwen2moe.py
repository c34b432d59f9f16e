"""qwen2moe: experts, and one that every token uses behind a gate of its own.

Source: llama.cpp 0c1e570 src/models/qwen2moe.cpp, llama_model_qwen2moe::graph.
"""

from functools import partial

from ggufphys.graph import ops
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.decoder import decoder, rotated
from ggufphys.graph.building.moe import Routing, moe_ffn
from ggufphys.graph.ir import Graph, Tensor
from ggufphys.graph.rope import read_rope


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    rope = read_rope(b.keys, b.h, "neox")
    x = b.inp_embd()
    x = decoder(b, x, rotated(b, rope, b.inp_pos()), partial(experts, b))
    return b.head(x)


def experts(b: Builder, x: Tensor, il: int) -> Tensor:
    """The chosen ones, and the shared one times the sigmoid of its gate, computed as silu(gate) / gate."""
    out = moe_ffn(b, x, il, Routing())
    gate = b.linear("ffn_gate_inp_shexp", il, x)
    shared = ops.mul(b.ffn_gated(x, il, suffix="_shexp"), ops.div(ops.unary(gate, "silu"), gate))
    return ops.add(out, shared)
