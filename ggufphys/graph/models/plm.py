"""plm: keys and values decompressed from a narrow row, part of each head rotated; ReLU squared.

The rows of V reach the cache as a matrix, whose columns llama.cpp takes for heads and the whole for one token. V that
is kept transposed is written all the same, element by element; with flash attention llama.cpp aborts for a batch of
more than one token (`ggml_set_rows`, rows of another width).

Source: llama.cpp 0c1e570 src/models/plm.cpp, llama_model_plm::graph.
"""

from dataclasses import replace

from ggufphys.graph import ops
from ggufphys.graph.attention import attentions
from ggufphys.graph.blocks import Builder
from ggufphys.graph.ir import Graph, Tensor
from ggufphys.graph.mla import compressed
from ggufphys.graph.rope import Rope, read_rope


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    rope = read_rope(b.keys, b.h, "norm")
    x = b.inp_embd()
    pos = b.inp_pos()
    attention = attentions(b)
    out_ids = b.inp_out_ids()
    for il in b.layers():
        residual = x
        q, k, v = _qkv(b, b.rms(x, "attn_norm", il), pos, rope, il)
        x = attention[b.kv_cache(il)](q, k, v, il, biased=False)
        x, residual = b.wanted(out_ids, il, x, residual)
        residual = ops.add(x, residual)
        x = ops.add(b.ffn_plain(b.rms(residual, "ffn_norm", il), il, None), residual)
    return b.head(b.rms(x, "output_norm"))


def _qkv(b: Builder, x: Tensor, pos: Tensor, rope: Rope, il: int) -> tuple[Tensor, Tensor, Tensor]:
    """Q and K (D, H, T), whose last elements are rotated, those of K alike in all heads; V (D*H, T)."""
    h, n_head, n_tokens, n_rot = b.h, b.h.n_head[il], b.batch.n_tokens, rope.n_dims
    n_nope, n_embd_head_v = h.n_embd_head_k - n_rot, h.n_embd_head_v
    q = b.heads(ops.mul_mat(b.weight("attn_q.weight", il), x), h.n_embd_head_k, n_head)
    latent, k_pe = compressed(b, x, n_rot, lambda part: part, il)
    kv = ops.mul_mat(b.weight("attn_kv_b.weight", il), latent)
    head = (n_nope + n_embd_head_v) * kv.nb[0]
    k_nope = ops.strided(kv, (n_nope, n_head, n_tokens), (head, head * n_head))
    v = ops.cont(ops.strided(kv, (n_embd_head_v, n_head, n_tokens), (head, head * n_head), n_nope * kv.nb[0]))
    v = ops.strided(v, (n_embd_head_v * n_head, n_tokens), (n_embd_head_v * n_head * v.nb[0],))
    q = b.rope(q, pos, None, replace(rope, offset=n_nope))
    k_pe = ops.repeat(b.rope(k_pe, pos, None, rope), n_rot, n_head, n_tokens)
    return q, ops.concat(k_nope, k_pe, 0), v
