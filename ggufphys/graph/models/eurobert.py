"""eurobert: the plain layers of a decoder as an encoder.

Source: llama.cpp 0c1e570 src/models/eurobert.cpp, llama_model_eurobert::graph.
"""

from functools import partial

from ggufphys.graph.building.attention_alone import AttentionAlone
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.decoder import decoder, rotated
from ggufphys.graph.ir import Graph
from ggufphys.graph.rope import read_rope


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to hidden states (n_embd, n_outputs)."""
    rope = read_rope(b.keys, b.h, "neox")
    x = b.inp_embd()
    qkv = rotated(b, rope, b.inp_pos())
    ffn = partial(b.ffn_gated, biased=False)
    return b.hidden(decoder(b, x, qkv, ffn, alone=AttentionAlone(b), biased=False))
