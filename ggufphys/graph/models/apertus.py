"""apertus: normed heads, and an activation with numbers of its own in each layer.

Source: llama.cpp 0c1e570 src/models/apertus.cpp, llama_model_apertus::graph.
"""

from ggufphys.graph import ops
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.decoder import decoder, rotated
from ggufphys.graph.ir import Graph, Tensor
from ggufphys.graph.rope import read_rope


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    rope = read_rope(b.keys, b.h, "neox")
    alpha_n, alpha_p, beta, eps = (
        b.keys.reals(f"xielu.{name}", b.h.n_layer) for name in ("alpha_n", "alpha_p", "beta", "eps")
    )

    def ffn(x: Tensor, il: int) -> Tensor:
        up = b.linear("ffn_up", il, x)
        return b.linear("ffn_down", il, ops.xielu(up, alpha_n[il], alpha_p[il], beta[il], eps[il]))

    x = b.inp_embd()
    x = decoder(b, x, rotated(b, rope, b.inp_pos(), factors=True, normed="before"), ffn)
    return b.head(x)
