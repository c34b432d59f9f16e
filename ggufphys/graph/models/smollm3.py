"""smollm3: every fourth layer does not rotate.

Source: llama.cpp 0c1e570 src/models/smollm3.cpp, llama_model_smollm3::graph.
"""

from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.decoder import decoder, rotated
from ggufphys.graph.ir import Graph, Tensor
from ggufphys.graph.rope import read_rope


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    rope = read_rope(b.keys, b.h, "norm")
    x = b.inp_embd()
    rotate = rotated(b, rope, b.inp_pos())

    def qkv(x: Tensor, il: int) -> tuple[Tensor, Tensor, Tensor]:
        return rotate(x, il) if b.h.has_rope(il) else b.qkv(x, il)

    return b.head(decoder(b, x, qkv, b.ffn_gated))
