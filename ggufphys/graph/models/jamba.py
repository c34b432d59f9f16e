"""jamba: state space layers of the first kind, attention without positions in some layers, experts in some.

Source: llama.cpp 0c1e570 src/models/jamba.cpp, llama_model_jamba::graph.
"""

from ggufphys.graph import ops
from ggufphys.graph.building import ssm
from ggufphys.graph.building.attention import Scores, attentions
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.decoder import dense_or_experts
from ggufphys.graph.building.moe import read_routing
from ggufphys.graph.building.recurrent import Recurrent
from ggufphys.graph.floats import sqrtf
from ggufphys.graph.ir import Graph


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    ffn = dense_or_experts(b, read_routing(b.keys, "softmax", norm_weights=False, weights_scale=0.0))
    x = b.inp_embd()
    rs = Recurrent(b)
    attention = attentions(b, Scores(factor=1 / sqrtf(b.h.n_embd_head_v or 1)))
    out_ids = b.inp_out_ids()
    for il in b.layers():
        residual = x
        x = b.rms(x, "attn_norm", il)
        is_recurrent = b.recurrent(il) is not None
        x = ssm.mamba(b, rs, x, il) if is_recurrent else attention[b.kv_cache(il)](*b.qkv(x, il), il)
        x, residual = b.wanted(out_ids, il, x, residual)
        residual = ops.add(residual, x)
        x = ffn(b.rms(residual, "ffn_norm", il), il)
        x = ops.add(residual, x)
    return b.head(b.rms(x, "output_norm"))
