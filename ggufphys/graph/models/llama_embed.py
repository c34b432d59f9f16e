"""llama-embed: llama without a cache and without logits; tokens see all others.

Source: llama.cpp 0c1e570 src/models/llama.cpp, llama_model_llama::graph<true>.
"""

from ggufphys.graph.building.attention_alone import AttentionAlone
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.decoder import decoder, dense_or_experts, rotated
from ggufphys.graph.building.moe import Routing
from ggufphys.graph.ir import Graph
from ggufphys.graph.rope import read_rope


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to hidden states (n_embd, n_outputs)."""
    rope = read_rope(b.keys, b.h, "norm")
    x = b.inp_embd()
    qkv = rotated(b, rope, b.inp_pos(), factors=True)
    ffn = dense_or_experts(b, Routing(norm_weights=True))
    return b.hidden(decoder(b, x, qkv, ffn, alone=AttentionAlone(b)))
