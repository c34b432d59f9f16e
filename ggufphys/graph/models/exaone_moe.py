"""exaone-moe: normed heads, windows that alone rotate, experts beside a shared one.

Source: llama.cpp 0c1e570 src/models/exaone-moe.cpp, llama_model_exaone_moe::graph.
"""

from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.decoder import decoder, dense_or_experts
from ggufphys.graph.building.moe import read_routing
from ggufphys.graph.ir import Graph, Tensor
from ggufphys.graph.rope import read_rope


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    rope = read_rope(b.keys, b.h, "neox")
    x = b.inp_embd()
    pos = b.inp_pos()

    def qkv(x: Tensor, il: int) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = b.qkv(x, il)
        q, k = b.rms(q, "attn_q_norm", il), b.rms(k, "attn_k_norm", il)
        if b.has_window(il):
            factors = b.rope_factors(il)
            q, k = b.rope(q, pos, factors, rope), b.rope(k, pos, factors, rope)
        return q, k, v

    return b.head(decoder(b, x, qkv, dense_or_experts(b, read_routing(b.keys)), biased=False))
