"""refact: no rotation, a bias that grows with the distance.

Source: llama.cpp 0c1e570 src/models/refact.cpp, llama_model_refact::graph.
"""

from ggufphys.graph import ops
from ggufphys.graph.building.attention import Scores
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.decoder import decoder
from ggufphys.graph.floats import sqrtf
from ggufphys.graph.ir import Graph, Tensor


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    x = b.inp_embd()
    scores = Scores(factor=1 / sqrtf(b.h.n_embd_head_v), max_bias=8.0)

    def ffn(x: Tensor, il: int) -> Tensor:
        if b.weight_or_none("ffn_up.weight", il) is None:
            return ops.unary(x, "silu")  # llama.cpp loads experts for this architecture and runs none
        return b.ffn_gated(x, il, biased=False)

    return b.head(decoder(b, x, b.qkv, ffn, scores=scores, biased=False))
