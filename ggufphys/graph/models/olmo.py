"""olmo: layer norms without gains, clamped queries, keys and values.

Source: llama.cpp 0c1e570 src/models/olmo.cpp, llama_model_olmo::graph.
"""

from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.decoder import decoder, rotated
from ggufphys.graph.ir import Graph
from ggufphys.graph.rope import read_rope


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    rope = read_rope(b.keys, b.h, "norm")
    clamp = b.keys.real("attention.clamp_kqv", 0.0)
    x = b.inp_embd()
    x = decoder(b, x, rotated(b, rope, b.inp_pos(), clamp=clamp), b.ffn_gated, norm=lambda x, name, il: b.norm(x, None))
    return b.head(x)
