"""Multi-head latent attention: keys and values of all heads are computed from one compressed row.

The cache keeps that row, and the product that would give the keys is applied to the queries instead: all heads then
read one key, whose first elements are the value.

Legend: H n_head, T tokens, R n_lora_kv, P the dimensions that rotate, N those of a head's key that do not.
Source: llama.cpp 0c1e570 src/models/deepseek2.cpp.
"""

from ggufphys.graph import ops
from ggufphys.graph.blocks import Builder
from ggufphys.graph.ir import Tensor
from ggufphys.graph.rope import Rope


def queries(b: Builder, x: Tensor, n_embd_head: int, il: int) -> Tensor:
    """Q (N + P, H, T), in two steps through `attn_q_a` where the layer has it."""
    whole = b.weight_or_none("attn_q.weight", il)
    if whole is not None:
        q = ops.mul_mat(whole, x)
    else:
        q = ops.mul_mat(b.weight("attn_q_a.weight", il), x)
        q = b.rms(q, "attn_q_a_norm", il)
        q = ops.mul_mat(b.weight("attn_q_b.weight", il), q)
    return b.heads(q, n_embd_head, b.h.n_head[il])


def compressed(b: Builder, x: Tensor, pos: Tensor, rope: Rope, il: int) -> tuple[Tensor, Tensor]:
    """The row that keys and values are computed from (R, T), normed, and the rotated part of keys (P, 1, T)."""
    n_lora, n_rot, n_tokens = b.h.n_lora_kv, rope.n_dims, b.batch.n_tokens
    both = ops.mul_mat(b.weight("attn_kv_a_mqa.weight", il), x)
    row = both.nb[1]
    latent = ops.strided(both, (n_lora, n_tokens), (row,))
    k_pe = ops.strided(both, (n_rot, 1, n_tokens), (row, row), n_lora * both.nb[0])
    return b.rms(latent, "attn_kv_a_norm", il), b.rope(k_pe, pos, None, rope)


def absorbed(b: Builder, q: Tensor, pos: Tensor, rope: Rope, il: int) -> Tensor:
    """Q (N + P, H, T) as a latent row is asked: (R + P, H, T)."""
    n_nope = q.ne[0] - rope.n_dims
    q_nope = ops.strided(q, (n_nope, *q.ne[1:3]), q.nb[1:3])
    q_pe = ops.strided(q, (rope.n_dims, *q.ne[1:3]), q.nb[1:3], n_nope * q.nb[0])
    q_nope = ops.mul_mat(b.weight("attn_k_b.weight", il), ops.permute(q_nope, 0, 2, 1, 3))
    return ops.concat(ops.permute(q_nope, 0, 2, 1, 3), b.rope(q_pe, pos, None, rope), 0)
