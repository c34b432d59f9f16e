"""dream: the plain decoder without a cache; tokens see all others.

Source: llama.cpp 0c1e570 src/models/dream.cpp, llama_model_dream::graph.
"""

from functools import partial

from ggufphys.graph.building.attention_alone import AttentionAlone
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.decoder import decoder, rotated
from ggufphys.graph.ir import Graph
from ggufphys.graph.rope import read_rope


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    rope = read_rope(b.keys, b.h, "neox")
    x = b.inp_embd()
    qkv, ffn = rotated(b, rope, b.inp_pos()), partial(b.ffn_gated, biased=False)
    return b.head(decoder(b, x, qkv, ffn, alone=AttentionAlone(b)), biased=False)
