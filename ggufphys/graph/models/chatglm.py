"""chatglm: one matrix for gate and up.

Source: llama.cpp 0c1e570 src/models/chatglm.cpp, llama_model_chatglm::graph.
"""

from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.decoder import decoder, rotated
from ggufphys.graph.ir import Graph
from ggufphys.graph.rope import read_rope


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    rope = read_rope(b.keys, b.h, "norm")
    x = b.inp_embd()
    x = decoder(b, x, rotated(b, rope, b.inp_pos()), b.ffn_halves)
    return b.head(x)
