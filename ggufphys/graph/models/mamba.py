"""mamba: state space layers and nothing else.

Source: llama.cpp 0c1e570 src/models/mamba.cpp, llama_model_mamba::graph.
"""

from collections.abc import Callable

from ggufphys.graph import ops
from ggufphys.graph.building import ssm
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.recurrent import Recurrent
from ggufphys.graph.ir import Graph, Tensor

Mix = Callable[[Builder, Recurrent, Tensor, int], Tensor]


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    return build_from(b, ssm.mamba)


def build_from(b: Builder, mix: Mix) -> Graph:
    """The whole graph, where `mix` is what a layer does between its norm and its residual."""
    x = b.inp_embd()
    rs = Recurrent(b)
    out_ids = b.inp_out_ids()
    for il in b.layers():
        residual = x
        x = mix(b, rs, b.rms(x, "attn_norm", il), il)
        x, residual = b.wanted(out_ids, il, x, residual)
        x = ops.add(x, residual)
    return b.head(b.rms(x, "output_norm"))
