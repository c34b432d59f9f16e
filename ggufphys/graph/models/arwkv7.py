"""arwkv7: time mixing of rwkv7 in the place of attention.

Source: llama.cpp 0c1e570 src/models/arwkv7.cpp, llama_model_arwkv7::graph.
"""

from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.recurrent import Recurrent
from ggufphys.graph.building.rwkv import time_mix_7
from ggufphys.graph.ir import Graph, Tensor
from ggufphys.graph.models.rwkv6qwen2 import build_with


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    first_value: Tensor | None = None

    def time_mix(rs: Recurrent, x: Tensor, x_prev: Tensor, il: int) -> Tensor:
        nonlocal first_value
        x, first_value = time_mix_7(b, rs, x, x_prev, first_value, il)
        return x

    return build_with(b, time_mix)
