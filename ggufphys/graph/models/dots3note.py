"""dots3note: latent attention of two sizes, over windows or over chosen positions; a gate for each head.

Source: llama.cpp 0c1e570 src/models/dots3note.cpp, llama_model_dots3note::graph.
"""

from collections.abc import Mapping
from functools import partial

from ggufphys.frozen import replace
from ggufphys.graph import ops
from ggufphys.graph.building import dsa, mla
from ggufphys.graph.building.attention import AttentionK, Scores
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.decoder import dense_or_experts
from ggufphys.graph.building.moe import read_routing
from ggufphys.graph.floats import sqrtf
from ggufphys.graph.ir import Graph, Tensor
from ggufphys.graph.rope import Rope, read_rope

INDEXER_EPS = 1e-6


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    b.norm_eps = INDEXER_EPS
    full = read_rope(b.keys, b.h, "norm")
    rope_swa = replace(full, freq_base=b.keys.real("rope.freq_base_swa"))
    n_rot = full.n_dims
    ffn = dense_or_experts(b, read_routing(b.keys))
    x = b.inp_embd()
    pos = b.inp_pos()
    attention = _attentions(b)
    indexer = dsa.Indexer(b, replace(full, mode="neox")) if False in attention else None
    out_ids = b.inp_out_ids()
    for il in b.layers():
        residual = x
        has_window = b.has_window(il)
        rotate = partial(_rotated, b, pos, rope_swa if has_window else full)
        x = b.rms(x, "attn_norm", il)
        row = mla.query_row(b, x, il)
        mask = None
        if not has_window and indexer is not None:
            mask = dsa.only(attention[False].mask, indexer.top_k(x, row, pos, il))
        q = mla.absorbed(b, ops.mul_mat(b.weight("attn_q_b.weight", il), row), n_rot, rotate, il)
        latent, k_pe = mla.compressed(b, x, n_rot, partial(_normed, b, rotate, il), il)
        out = mla.attend(b, attention[has_window], q, latent, k_pe, il, mask=mask)
        x = b.linear("attn_output", il, _gated(b, out, x, il), biased=False)
        x, residual = b.wanted(out_ids, il, x, residual)
        residual = ops.add(x, residual)
        x = ops.add(ffn(b.rms(residual, "ffn_norm", il), il), residual)
    return b.head(b.rms(x, "output_norm"))


def _attentions(b: Builder) -> Mapping[bool, AttentionK]:
    """Attention in layers without and with a window, as far as there are such layers."""
    n_embd_head = {False: b.h.n_embd_head_k_mla, True: b.keys.integer("attention.key_length_mla_swa")}
    caches = {b.has_window(il): b.kv_cache(il) for il in range(b.h.n_layer)}
    return {
        has_window: AttentionK(b, cache, Scores(factor=1 / sqrtf(n_embd_head[has_window])))
        for has_window, cache in caches.items()
    }


def _rotated(b: Builder, pos: Tensor, rope: Rope, x: Tensor) -> Tensor:
    return b.rope(x, pos, None, rope)


def _normed(b: Builder, rotate: mla.Rotate, il: int, k_pe: Tensor) -> Tensor:
    return rotate(b.rms(k_pe, "attn_k_norm", il))


def _gated(b: Builder, found: Tensor, x: Tensor, il: int) -> Tensor:
    """What each head found (D*H, T), times one number from X (E, T)."""
    n_head, n_tokens = b.h.n_head[il], b.batch.n_tokens
    gate = ops.reshape(ops.unary(b.linear("attn_gate", il, x, biased=False), "sigmoid"), 1, n_head, n_tokens)
    heads = ops.mul(ops.reshape(found, found.ne[0] // n_head, n_head, n_tokens), gate)
    return ops.reshape(heads, found.ne[0], n_tokens)
