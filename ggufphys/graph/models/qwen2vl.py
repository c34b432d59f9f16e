"""qwen2vl: as qwen2 with four positions a token.

Source: llama.cpp 0c1e570 src/models/qwen2vl.cpp, llama_model_qwen2vl::graph.
"""

from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.decoder import decoder, rotated
from ggufphys.graph.ir import Graph
from ggufphys.graph.rope import read_rope, read_sections


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    b.norm_rms_eps = 0.0  # this llama.cpp does not read it
    rope = read_rope(b.keys, b.h, "mrope", sections=read_sections(b.keys))
    x = b.inp_embd()
    x = decoder(b, x, rotated(b, rope, b.inp_pos(rope.n_pos_per_embd)), b.ffn_gated)
    return b.head(x, biased=False)
