"""ernie4_5 and ernie4_5-moe: experts in some layers of the latter, beside a shared one.

Source: llama.cpp 0c1e570 src/models/ernie4-5.cpp, llama_model_ernie4_5::graph; src/models/ernie4-5-moe.cpp.
"""

from ggufphys.graph import ops
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.decoder import decoder, dense_or_experts, rotated
from ggufphys.graph.building.moe import Routing
from ggufphys.graph.ir import Graph, Tensor
from ggufphys.graph.rope import read_rope


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    rope = read_rope(b.keys, b.h, "norm")
    feed_forward = dense_or_experts(b, Routing(norm_weights=True), biased=False)

    def ffn(x: Tensor, il: int) -> Tensor:
        if b.weight_or_none("ffn_up.weight", il) is None and not b.h.is_moe_step(il):
            return ops.unary(x, "silu")  # llama.cpp loads experts in layers between the steps too, and runs none there
        return feed_forward(x, il)

    x = b.inp_embd()
    x = decoder(b, x, rotated(b, rope, b.inp_pos()), ffn, biased=False)
    return b.head(x)
