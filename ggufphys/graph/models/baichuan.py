"""baichuan: rotations in the small model, a bias that grows with the distance in the large one.

Source: llama.cpp 0c1e570 src/models/baichuan.cpp, llama_model_baichuan::graph.
"""

from ggufphys.graph.building.attention import Scores
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.decoder import decoder, rotated
from ggufphys.graph.floats import sqrtf
from ggufphys.graph.ir import Graph
from ggufphys.graph.rope import read_rope

N_LAYER_7B, N_LAYER_13B = 32, 40


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    rope = read_rope(b.keys, b.h, "norm")
    x = b.inp_embd()
    qkv = rotated(b, rope, b.inp_pos()) if b.h.n_layer == N_LAYER_7B else b.qkv
    max_bias = 8.0 if b.h.n_layer == N_LAYER_13B else 0.0
    scores = Scores(factor=1 / sqrtf(b.h.n_embd_head_v), max_bias=max_bias)
    return b.head(decoder(b, x, qkv, b.ffn_gated, scores=scores))
