"""granitemoe: granite, with rotary positions whatever the file says.

Source: llama.cpp 0c1e570 src/models/granite-moe.cpp, llama_model_granite_moe::load_arch_hparams; granite.cpp.
"""

from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.ir import Graph
from ggufphys.graph.models import granite


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    return granite.build_if_rotated(b, rotated=True)
