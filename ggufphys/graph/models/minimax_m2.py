"""minimax-m2: experts; whole rows of queries and keys are normed.

Source: llama.cpp 0c1e570 src/models/minimax-m2.cpp, llama_model_minimax_m2::graph.
"""

from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.decoder import decoder, dense_or_experts, rows_normed
from ggufphys.graph.building.moe import read_routing
from ggufphys.graph.ir import Graph
from ggufphys.graph.rope import read_rope


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    rope = read_rope(b.keys, b.h, "neox")
    routing = read_routing(b.keys, norm_weights=True, weights_scale=0.0)
    x = b.inp_embd()
    x = decoder(b, x, rows_normed(b, rope, b.inp_pos()), dense_or_experts(b, routing))
    return b.head(x)
