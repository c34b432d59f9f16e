"""olmoe: experts; whole rows of queries and keys are normed.

Source: llama.cpp 0c1e570 src/models/olmoe.cpp, llama_model_olmoe::graph.
"""

from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.decoder import decoder, dense_or_experts, rows_normed
from ggufphys.graph.building.moe import Routing
from ggufphys.graph.ir import Graph
from ggufphys.graph.rope import read_rope


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    rope = read_rope(b.keys, b.h, "neox")
    x = b.inp_embd()
    x = decoder(b, x, rows_normed(b, rope, b.inp_pos()), dense_or_experts(b, Routing()))
    return b.head(x)
