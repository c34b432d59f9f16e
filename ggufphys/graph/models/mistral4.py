"""mistral4: deepseek2 whose experts' inner values may be too large for F16.

Source: llama.cpp 0c1e570 src/models/mistral4.cpp; src/llama-graph.cpp, build_moe_ffn.
"""

from ggufphys.frozen import replace
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.ir import Graph
from ggufphys.graph.models.deepseek2 import build_with, read_own_routing


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    return build_with(b, replace(read_own_routing(b), inner_in_f32=True))
