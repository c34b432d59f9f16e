"""dbrx: layer norms, clamped queries, keys and values, experts.

Source: llama.cpp 0c1e570 src/models/dbrx.cpp, llama_model_dbrx::graph.
"""

from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.decoder import decoder, dense_or_experts, rotated
from ggufphys.graph.building.moe import Routing
from ggufphys.graph.ir import Graph
from ggufphys.graph.rope import read_rope


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    rope = read_rope(b.keys, b.h, "neox")
    clamp = b.keys.real("attention.clamp_kqv")
    x = b.inp_embd()
    x = decoder(
        b,
        x,
        rotated(b, rope, b.inp_pos(), clamp=clamp),
        dense_or_experts(b, Routing(norm_weights=True)),
        norm=b.layer_norm,
        ffn_norm="attn_output_norm",
    )
    return b.head(x)
