"""deepseek32: as deepseek2, with indexers that choose the positions that tokens attend to.

Source: llama.cpp 0c1e570 src/models/deepseek32.cpp, llama_model_deepseek32::graph.
"""

from ggufphys.frozen import replace
from ggufphys.graph import ops
from ggufphys.graph.building import dsa, mla
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.decoder import dense_or_experts
from ggufphys.graph.building.moe import Routing, read_routing
from ggufphys.graph.ir import Graph, Tensor
from ggufphys.graph.models.deepseek2 import build_head_with, rope_and_scores
from ggufphys.graph.rope import RopeMode

INDEXER_EPS = 1e-6


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    b.norm_eps = INDEXER_EPS
    return build_with(b, "neox", read_routing(b.keys))


def build_head(b: Builder) -> Graph:
    """The prediction head's graph, from token ids and hidden states to logits (n_vocab, n_outputs)."""
    return head_of(b, read_routing(b.keys))


def head_of(b: Builder, routing: Routing) -> Graph:
    """The prediction head's graph, with experts that are chosen as `routing` says."""
    log_mul = b.keys.real("rope.scaling.yarn_log_multiplier", 0.0) / 0.1
    return build_head_with(b, *rope_and_scores(b, b.h.n_embd_head_k_mla, log_mul), routing)


def build_with(b: Builder, indexer_mode: RopeMode, routing: Routing) -> Graph:
    """The whole graph. Layers without an indexer of their own use what the one before them chose."""
    log_mul = b.keys.real("rope.scaling.yarn_log_multiplier", 0.0) / 0.1
    rope, scores = rope_and_scores(b, b.h.n_embd_head_k_mla, log_mul)
    ffn = dense_or_experts(b, routing)
    x = b.inp_embd()
    pos = b.inp_pos()
    attention = mla.attention_k(b, scores)
    indexer = dsa.Indexer(b, replace(rope, mode=indexer_mode))
    out_ids = b.inp_out_ids()

    def rotate(part: Tensor) -> Tensor:
        return b.rope(part, pos, None, rope)

    chosen: Tensor | None = None
    for il in b.layers():
        residual = x
        x = b.rms(x, "attn_norm", il)
        row = mla.query_row(b, x, il)
        if chosen is None or dsa.indexer_cache(b, il) is not None:
            chosen = indexer.top_k(x, row, pos, il)
        q = ops.mul_mat(b.weight("attn_q_b.weight", il), row)
        q = mla.absorbed(b, q, rope.n_dims, rotate, il)
        latent, k_pe = mla.compressed(b, x, rope.n_dims, rotate, il)
        x = mla.attend(b, attention, q, latent, k_pe, il, mask=dsa.only(attention.mask, chosen))
        x = b.linear("attn_output", il, x)
        x, residual = b.wanted(out_ids, il, x, residual)
        residual = ops.add(x, residual)
        x = ops.add(ffn(b.rms(residual, "ffn_norm", il), il), residual)
    return b.head(b.rms(x, "output_norm"))
