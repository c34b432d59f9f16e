"""qwen3 and qwen3moe: heads of queries and keys are normed.

Source: llama.cpp 0c1e570 src/models/qwen3.cpp, llama_model_qwen3::graph; src/models/qwen3moe.cpp.
"""

from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.decoder import decoder, dense_or_experts, rotated
from ggufphys.graph.building.moe import Routing
from ggufphys.graph.ir import Graph
from ggufphys.graph.rope import read_rope


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    rope = read_rope(b.keys, b.h, "neox")
    x = b.inp_embd()
    x = decoder(b, x, rotated(b, rope, b.inp_pos(), normed="before"), dense_or_experts(b, Routing(norm_weights=True)))
    return b.head(x)
