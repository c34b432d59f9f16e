"""hunyuan-dense and hunyuan-moe: heads are normed behind the rotation; experts beside a shared one.

Source: llama.cpp 0c1e570 src/models/hunyuan-vl.cpp, llama_model_hunyuan_vl::graph; src/models/hunyuan-moe.cpp.
"""

from ggufphys.frozen import replace
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.decoder import decoder, dense_or_experts, rotated
from ggufphys.graph.building.moe import Routing
from ggufphys.graph.floats import quotient
from ggufphys.graph.ir import Graph
from ggufphys.graph.rope import Rope, read_rope


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    return build_with(b, read_rope(b.keys, b.h, "neox"))


def build_with(b: Builder, rope: Rope) -> Graph:
    """The whole graph with these rotations; the dense models extend contexts by a larger base."""
    alpha = 0.0 if b.h.n_expert else b.keys.real("rope.scaling.alpha", 0.0)
    if alpha > 0:
        size = b.h.n_embd_head_k
        rope = replace(rope, freq_base=rope.freq_base * alpha ** quotient(size, size - 2))
    x = b.inp_embd()
    qkv = rotated(b, rope, b.inp_pos(rope.n_pos_per_embd), factors=True, normed="after")
    x = decoder(b, x, qkv, dense_or_experts(b, Routing(norm_weights=True)))
    return b.head(x)
