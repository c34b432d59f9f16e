"""hy_v4: latent attention with sinks and gates, over chosen positions if there is an indexer; several residual streams.

Source: llama.cpp 0c1e570 src/models/hy-v4.cpp, llama_model_hy_v4::graph.
"""

from ggufphys.frozen import replace
from ggufphys.graph import ops
from ggufphys.graph.building import dsa, mla
from ggufphys.graph.building.attention import Scores
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.hyper import wanted
from ggufphys.graph.building.hyper_independent import IndependentStreams
from ggufphys.graph.building.limited import limited_experts
from ggufphys.graph.building.moe import Routing, moe_ffn, read_routing
from ggufphys.graph.floats import sqrtf
from ggufphys.graph.ir import Graph, Tensor
from ggufphys.graph.rope import read_rope

SMALLEST_LIMIT = 1e-6


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    h = b.h
    b.norm_eps = b.norm_rms_eps  # its indexers' norm
    rope = read_rope(b.keys, h, "norm")
    routing = read_routing(b.keys)
    streams = IndependentStreams(b)
    x = b.inp_embd()
    pos = b.inp_pos()
    attention = mla.attention_k(b, Scores(factor=1 / sqrtf(h.n_embd_head_k_mla)))
    last = replace(rope, offset=h.indexer_head_size - rope.n_dims)
    indexer = dsa.Indexer(b, last, hadamard_rotated=False) if h.indexer_top_k else None
    out_ids = b.inp_out_ids()

    def rotate(part: Tensor) -> Tensor:
        return b.rope(part, pos, None, rope)

    mask: Tensor | None = None
    chosen: Tensor | None = None
    all_streams = streams.begin(x)
    for il in b.layers():
        x, weights = streams.read(all_streams, "attn", il)
        x = b.rms(x, "attn_norm", il)
        row = mla.query_row(b, x, il)
        if indexer is not None:
            if chosen is None or dsa.indexer_cache(b, il) is not None:
                chosen = indexer.top_k(x, row, pos, il)
            mask = dsa.only(attention.mask, chosen)
        q = mla.absorbed(b, ops.mul_mat(b.weight("attn_q_b.weight", il), row), rope.n_dims, rotate, il)
        latent, k_pe = mla.compressed(b, x, rope.n_dims, rotate, il)
        out = mla.attend(b, attention, q, latent, k_pe, il, sinks=b.weight("attn_sinks.weight", il), mask=mask)
        out = ops.mul(out, ops.unary(ops.mul_mat(b.weight("attn_gate.weight", il), x), "sigmoid"))
        out = b.mul_mat(b.weight("attn_output.weight", il), out)
        all_streams = streams.write(all_streams, out, weights)
        x, weights = streams.read(all_streams, "ffn", il)
        x = _ffn(b, b.rms(x, "ffn_norm", il), routing, il)
        all_streams = streams.write(all_streams, x, weights)

    return b.head(b.rms(streams.end(wanted(all_streams, out_ids)), "output_norm"))


def _ffn(b: Builder, x: Tensor, routing: Routing, il: int) -> Tensor:
    """Dense layers first, then experts, whose activations alone are limited, beside a shared one."""
    if b.weight_or_none("ffn_gate_inp.weight", il) is None:
        return b.ffn_gated(x, il)
    limit = b.h.swiglu_clamp_exp[il]
    out = moe_ffn(b, x, il, routing, limited_experts(limit if limit > SMALLEST_LIMIT else 0.0))
    return ops.add(out, b.ffn_gated(x, il, suffix="_shexp"))
