"""deepseek2-ocr: experts as in deepseek2, behind the usual attention.

Source: llama.cpp 0c1e570 src/models/deepseek2.cpp, llama_model_deepseek2::graph (is_ocr).
"""

from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.decoder import decoder, dense_or_experts, rotated
from ggufphys.graph.building.moe import read_routing
from ggufphys.graph.ir import Graph
from ggufphys.graph.models.deepseek2 import rope_and_scores
from ggufphys.graph.rope import Rope


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    d = b.h.n_embd // b.h.n_head[0]
    freq_base = b.keys.real("rope.freq_base", 10000.0)
    rope = Rope(n_dims=d, mode="neox", n_ctx_orig=0, freq_base=freq_base, beta_fast=0.0, beta_slow=0.0)
    _, scores = rope_and_scores(b, d, 0.0)
    x = b.inp_embd()
    qkv = rotated(b, rope, b.inp_pos())
    routing = read_routing(b.keys, None if b.keys.integer("expert_gating_func", 0) else "softmax")
    return b.head(decoder(b, x, qkv, dense_or_experts(b, routing), scores=scores, biased=False))
