"""gpt2 and starcoder: learned positions, layer norms, biases everywhere, a plain GELU.

Source: llama.cpp 0c1e570 src/models/gpt2.cpp, llama_model_gpt2::graph; src/models/starcoder.cpp.
"""

from functools import partial

from ggufphys.graph import ops
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.decoder import decoder
from ggufphys.graph.ir import Graph


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    x = b.inp_embd()
    x = ops.add(x, ops.get_rows(b.weight("position_embd.weight"), b.inp_pos()))
    return b.head(decoder(b, x, b.qkv, partial(b.ffn_plain, kind="gelu"), norm=b.layer_norm))
