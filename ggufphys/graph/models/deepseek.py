"""deepseek: dense layers first, then experts beside a shared one.

Source: llama.cpp 0c1e570 src/models/deepseek.cpp, llama_model_deepseek::graph.
"""

from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.decoder import decoder, dense_or_experts, rotated
from ggufphys.graph.building.moe import Routing
from ggufphys.graph.ir import Graph
from ggufphys.graph.rope import read_rope


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    rope = read_rope(b.keys, b.h, "norm")
    routing = Routing(weights_scale=b.keys.real("expert_weights_scale", 0.0))
    x = b.inp_embd()
    x = decoder(b, x, rotated(b, rope, b.inp_pos(), factors=True), dense_or_experts(b, routing))
    return b.head(x)
