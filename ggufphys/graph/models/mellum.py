"""mellum: normed heads, windows whose rotation is not extended, experts.

Source: llama.cpp 0c1e570 src/models/mellum.cpp, llama_model_mellum::graph.
"""

from ggufphys.frozen import replace
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.decoder import decoder, dense_or_experts, rotated
from ggufphys.graph.building.moe import Routing
from ggufphys.graph.ir import Graph, Tensor
from ggufphys.graph.rope import read_rope


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    full = read_rope(b.keys, b.h, "neox")
    x = b.inp_embd()
    pos = b.inp_pos()
    everywhere = rotated(b, full, pos, normed="before")
    in_windows = rotated(b, replace(full, freq_scale=1.0, ext_factor=0.0, attn_factor=1.0), pos, normed="before")

    def qkv(x: Tensor, il: int) -> tuple[Tensor, Tensor, Tensor]:
        return in_windows(x, il) if b.has_window(il) else everywhere(x, il)

    return b.head(decoder(b, x, qkv, dense_or_experts(b, Routing(norm_weights=True))))
