"""rwkv7: as rwkv6, with the first layer's values mixed into all others'.

Source: llama.cpp 0c1e570 src/models/rwkv7.cpp, llama_model_rwkv7::graph.
"""

from ggufphys.graph import ops
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.recurrent import Recurrent
from ggufphys.graph.building.rwkv import lerp, time_mix_7
from ggufphys.graph.ir import Graph, Tensor
from ggufphys.graph.models.rwkv6 import build_with


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    first_value: Tensor | None = None

    def time_mix(rs: Recurrent, x: Tensor, x_prev: Tensor, il: int) -> Tensor:
        nonlocal first_value
        x, first_value = time_mix_7(b, rs, x, x_prev, first_value, il)
        return x

    def channel_mix(x: Tensor, x_prev: Tensor, il: int) -> Tensor:
        xk = lerp(b, x, ops.sub(x_prev, x), "channel_mix_lerp_k", il)
        k = ops.sqr(ops.unary(b.linear("channel_mix_key", il, xk), "relu"))
        return b.linear("channel_mix_value", il, k)

    return build_with(b, time_mix, channel_mix)
