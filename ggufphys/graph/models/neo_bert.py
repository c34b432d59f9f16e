"""neo-bert: an encoder whose feed-forward layers have gate and up in one matrix.

Source: llama.cpp 0c1e570 src/models/neo-bert.cpp, llama_model_neo_bert::graph.
"""

from ggufphys.graph.building.attention_alone import AttentionAlone
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.decoder import decoder, rotated
from ggufphys.graph.ir import Graph
from ggufphys.graph.rope import read_rope


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to hidden states (n_embd, n_outputs)."""
    rope = read_rope(b.keys, b.h, "norm")
    x = b.inp_embd()
    qkv = rotated(b, rope, b.inp_pos())
    x = decoder(b, x, qkv, b.ffn_halves, alone=AttentionAlone(b), biased=False, last_norm="enc.output_norm")
    return b.hidden(x)
