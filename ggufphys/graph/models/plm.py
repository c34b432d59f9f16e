"""plm: keys and values decompressed from a narrow row, part of each head rotated; ReLU squared.

The rows of V reach the cache as a matrix, whose columns llama.cpp takes for heads and the whole for one token. V that
is kept transposed is written all the same, element by element; with flash attention llama.cpp aborts for a batch of
more than one token (`ggml_set_rows`, rows of another width).

Source: llama.cpp 0c1e570 src/models/plm.cpp, llama_model_plm::graph.
"""

from functools import partial

from ggufphys.frozen import replace
from ggufphys.graph import ops
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.decoder import decoder
from ggufphys.graph.building.mla import compressed
from ggufphys.graph.ir import Graph, Tensor
from ggufphys.graph.rope import Rope, read_rope


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    rope = read_rope(b.keys, b.h, "norm")
    x, pos = b.inp_embd(), b.inp_pos()
    return b.head(decoder(b, x, partial(_qkv, b, pos, rope), partial(b.ffn_plain, kind=None), biased=False))


def _qkv(b: Builder, pos: Tensor, rope: Rope, x: Tensor, il: int) -> tuple[Tensor, Tensor, Tensor]:
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
