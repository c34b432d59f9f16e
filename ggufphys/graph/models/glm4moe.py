"""glm4moe: heads normed where the file has the gains; dense layers first, then experts beside a shared one.

Source: llama.cpp 0c1e570 src/models/glm4-moe.cpp, llama_model_glm4_moe::graph.
"""

from ggufphys.graph.blocks import Builder
from ggufphys.graph.decoder import decoder, dense_or_experts, rotated
from ggufphys.graph.ir import Graph
from ggufphys.graph.moe import read_routing
from ggufphys.graph.rope import read_rope, read_sections


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    sections = read_sections(b.keys)
    rope = read_rope(b.keys, b.h, "mrope" if sections else "neox", sections=sections)
    number = b.keys.integer("expert_gating_func", 0)
    routing = read_routing(b.keys, None if number else "sigmoid")
    x = b.inp_embd()
    qkv = rotated(b, rope, b.inp_pos(rope.n_pos_per_embd), normed="before")
    x = decoder(b, x, qkv, dense_or_experts(b, routing), ffn_norm="post_attention_norm")
    return b.head(x)
