"""glm4moe: heads normed where the file has the gains; dense layers first, then experts beside a shared one.

Source: llama.cpp 0c1e570 src/models/glm4-moe.cpp, llama_model_glm4_moe::graph.
"""

from ggufphys.graph import ops
from ggufphys.graph.building import head
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.decoder import Ffn, cached, decoder, dense_or_experts, rotated
from ggufphys.graph.building.moe import read_routing
from ggufphys.graph.ir import Graph
from ggufphys.graph.rope import read_rope, read_sections


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    sections = read_sections(b.keys)
    rope = read_rope(b.keys, b.h, "mrope" if sections else "neox", sections=sections)
    x = b.inp_embd()
    qkv = rotated(b, rope, b.inp_pos(rope.n_pos_per_embd), normed="before")
    x = decoder(b, x, qkv, _ffn(b), ffn_norm="post_attention_norm")
    return b.head(x)


def build_head(b: Builder) -> Graph:
    """The prediction head's graph, from token ids and hidden states to logits (n_vocab, n_outputs)."""
    il, rope = b.h.n_layer, read_rope(b.keys, b.h, "mrope" if read_sections(b.keys) else "neox")
    qkv = rotated(b, rope, b.inp_pos(rope.n_pos_per_embd), normed="before")
    attend, ffn, out_ids = cached(b), _ffn(b), b.inp_out_ids()
    residual = head.begin(b)
    x = attend(*qkv(b.norm_rms(residual, b.weight("attn_norm.weight", il)), il), il)
    residual = ops.add(x, residual)
    x = ops.add(ffn(b.norm_rms(residual, b.weight("post_attention_norm.weight", il)), il), residual)
    return head.end_all(b, x, out_ids)


def _ffn(b: Builder) -> Ffn:
    number = b.keys.integer("expert_gating_func", 0)
    return dense_or_experts(b, read_routing(b.keys, None if number else "sigmoid"), shared_always=True)
