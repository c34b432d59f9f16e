"""llada-moe: experts, normed heads of queries and keys, no cache; tokens see all others.

Source: llama.cpp 0c1e570 src/models/llada-moe.cpp, llama_model_llada_moe::graph.
"""

from ggufphys.graph.building.attention_alone import AttentionAlone
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.decoder import decoder, dense_or_experts, rotated
from ggufphys.graph.building.moe import Routing
from ggufphys.graph.ir import Graph
from ggufphys.graph.rope import read_rope


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    rope = read_rope(b.keys, b.h, "neox")
    x = b.inp_embd()
    qkv = rotated(b, rope, b.inp_pos(), normed="before")
    return b.head(decoder(b, x, qkv, dense_or_experts(b, Routing()), alone=AttentionAlone(b)))
