"""glm-dsa: as deepseek32; layers may share an indexer.

Source: llama.cpp 0c1e570 src/models/glm-dsa.cpp, llama_model_glm_dsa::graph.
"""

from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.moe import Routing, read_routing
from ggufphys.graph.ir import Graph
from ggufphys.graph.models import deepseek2
from ggufphys.graph.models.deepseek32 import build_with, head_of


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    if "glm_dsa_attends_to_all" in b.context.rules:
        return deepseek2.build(b)
    b.norm_eps = 0.0  # its loader reads none for the indexers' norm
    return build_with(b, "norm", _routing(b))


def build_head(b: Builder) -> Graph:
    """The prediction head's graph, from token ids and hidden states to logits (n_vocab, n_outputs)."""
    return head_of(b, _routing(b))


def _routing(b: Builder) -> Routing:
    return read_routing(b.keys, None if b.keys.integer("expert_gating_func", 0) else "sigmoid")
