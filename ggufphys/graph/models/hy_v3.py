"""hy_v3: normed heads; dense layers first, then experts beside a shared one.

Source: llama.cpp 0c1e570 src/models/hy-v3.cpp, llama_model_hy_v3::graph.
"""

from collections.abc import Callable

from ggufphys.graph import ops
from ggufphys.graph.building import head
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.decoder import cached, dense_or_experts, rotated
from ggufphys.graph.building.moe import read_routing
from ggufphys.graph.ir import Graph, Tensor
from ggufphys.graph.rope import read_rope


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    x = b.inp_embd()
    layer = _layer(b)
    out_ids = b.inp_out_ids()
    for il in b.layers():
        x = layer(x, il, out_ids)
    return b.head(b.wanted_late(b.rms(x, "output_norm"), out_ids))


def build_head(b: Builder) -> Graph:
    """The prediction head's graph, from token ids and hidden states to logits (n_vocab, n_outputs)."""
    layer, out_ids = _layer(b), b.inp_out_ids()
    return head.end_all(b, layer(head.begin(b), b.h.n_layer), out_ids)


def _layer(b: Builder) -> Callable[..., Tensor]:
    """From stream to stream (E, T), given the layer and, of the trunk's, which tokens are wanted."""
    number = b.keys.integer("expert_gating_func", 0)
    ffn = dense_or_experts(b, read_routing(b.keys, None if number else "sigmoid"))
    qkv = rotated(b, read_rope(b.keys, b.h, "neox"), b.inp_pos(), factors=True, normed="before")
    attend = cached(b)

    def layer(x: Tensor, il: int, out_ids: Tensor | None = None) -> Tensor:
        attended = attend(*qkv(b.rms(x, "attn_norm", il), il), il)
        if out_ids is not None:
            attended, x = b.wanted_early(out_ids, il, attended, x)
        residual = ops.add(attended, x)
        return ops.add(ffn(b.rms(residual, "ffn_norm", il), il), residual)

    return layer
