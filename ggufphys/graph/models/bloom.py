"""bloom: normed embeddings, a bias that grows with the distance, layer norms, a plain GELU.

Source: llama.cpp 0c1e570 src/models/bloom.cpp, llama_model_bloom::graph.
"""

from functools import partial

from ggufphys.graph.building.attention import Scores
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.decoder import decoder
from ggufphys.graph.floats import sqrtf
from ggufphys.graph.ir import Graph


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    x = b.layer_norm(b.inp_embd(), "token_embd_norm")
    scores = Scores(factor=1 / sqrtf(b.h.n_embd_head_v), max_bias=8.0)
    return b.head(decoder(b, x, b.qkv, partial(b.ffn_plain, kind="gelu"), norm=b.layer_norm, scores=scores))
