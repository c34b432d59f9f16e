"""mamba2: as mamba, with layers of the second kind.

Source: llama.cpp 0c1e570 src/models/mamba.cpp, llama_model_mamba::graph.
"""

from ggufphys.graph.building import ssm
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.ir import Graph
from ggufphys.graph.models.mamba import build_from


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    return build_from(b, ssm.mamba2)
