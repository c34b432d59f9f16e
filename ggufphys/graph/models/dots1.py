"""dots1 and bailingmoe2: normed heads; dense layers first, then experts beside a shared one.

Source: llama.cpp 0c1e570 src/models/dots1.cpp, llama_model_dots1::graph; src/models/bailingmoe2.cpp.
"""

from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.decoder import decoder, dense_or_experts, rotated
from ggufphys.graph.building.moe import read_routing
from ggufphys.graph.ir import Graph
from ggufphys.graph.rope import read_rope


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    rope = read_rope(b.keys, b.h, "neox")
    x = b.inp_embd()
    x = decoder(b, x, rotated(b, rope, b.inp_pos(), normed="before"), dense_or_experts(b, read_routing(b.keys)))
    return b.head(x)
