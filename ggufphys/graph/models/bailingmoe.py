"""bailingmoe: experts beside a shared one; scores scaled by the dimensions that rotate.

Source: llama.cpp 0c1e570 src/models/bailingmoe.cpp, llama_model_bailingmoe::graph.
"""

from ggufphys.graph.building.attention import Scores
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.decoder import decoder, dense_or_experts, rotated
from ggufphys.graph.building.moe import read_routing
from ggufphys.graph.floats import sqrtf
from ggufphys.graph.ir import Graph
from ggufphys.graph.rope import read_rope


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    rope = read_rope(b.keys, b.h, "norm")
    routing = read_routing(b.keys, "softmax")
    x = b.inp_embd()
    x = decoder(
        b,
        x,
        rotated(b, rope, b.inp_pos(), factors=True),
        dense_or_experts(b, routing),
        scores=Scores(factor=1 / sqrtf(rope.n_dims)),
    )
    return b.head(x)
