"""jais: a bias that grows with the distance, scores scaled by the head size itself, layer norms.

Source: llama.cpp 0c1e570 src/models/jais.cpp, llama_model_jais::graph.
"""

from ggufphys.graph.building.attention import Scores
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.decoder import decoder
from ggufphys.graph.ir import Graph


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    x = b.inp_embd()
    scores = Scores(factor=1 / b.h.n_embd_head_v, max_bias=b.keys.real("attention.max_alibi_bias", 0.0))
    return b.head(decoder(b, x, b.qkv, b.ffn_gated, norm=b.layer_norm, scores=scores))
