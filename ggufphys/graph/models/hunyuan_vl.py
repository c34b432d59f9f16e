"""hunyuan_vl: as hunyuan-dense, with four positions a token where the file has sections.

Source: llama.cpp 0c1e570 src/models/hunyuan-vl.cpp, llama_model_hunyuan_vl::graph.
"""

from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.ir import Graph
from ggufphys.graph.models import hunyuan
from ggufphys.graph.rope import read_rope, read_sections


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    sections = read_sections(b.keys)
    return hunyuan.build_with(b, read_rope(b.keys, b.h, "mrope" if sections else "neox", sections=sections))
