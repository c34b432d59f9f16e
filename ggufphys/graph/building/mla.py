"""Multi-head latent attention: keys and values of all heads are computed from one compressed row.

The cache keeps that row, and the product that would give the keys is applied to the queries instead: all heads then
read one key, whose first elements are the value.

Legend: H n_head, T tokens, R the length of the row, P the dimensions that rotate, N those of a head's key that do not.
Source: llama.cpp 0c1e570 src/models/deepseek2.cpp.
"""

from collections.abc import Callable

from ggufphys.graph import ops
from ggufphys.graph.building.attention import AttentionK, Scores
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.ir import Tensor

Rotate = Callable[[Tensor], Tensor]
"""What turns the part of queries and keys that rotates (P, H or 1, T); it may leave it as it is."""


def attention_k(b: Builder, scores: Scores) -> AttentionK:
    """Attention over the compressed rows, which are alike in all layers that have them."""
    return AttentionK(b, b.first_kv_cache(), scores)


def attention_k_or_none(b: Builder, scores: Scores) -> AttentionK | None:
    """Attention over the compressed rows; None where all layers are recurrent."""
    attends = any(b.kv_cache_or_none(il) is not None for il in range(len(b.caches)))
    return attention_k(b, scores) if attends else None


def queries(b: Builder, x: Tensor, il: int) -> Tensor:
    """Q of all heads ((N + P)*H, T), in two steps through `attn_q_a` where the layer has it."""
    whole = b.weight_or_none("attn_q.weight", il)
    if whole is not None:
        return ops.mul_mat(whole, x)
    return ops.mul_mat(b.weight("attn_q_b.weight", il), query_row(b, x, il))


def query_row(b: Builder, x: Tensor, il: int) -> Tensor:
    """The row that queries are computed from, normed."""
    return b.rms(ops.mul_mat(b.weight("attn_q_a.weight", il), x), "attn_q_a_norm", il)


def compressed(b: Builder, x: Tensor, n_rot: int, rotate: Rotate, il: int) -> tuple[Tensor, Tensor]:
    """The row that keys and values are computed from (R, T), normed, and the rotated part of keys (P, 1, T)."""
    n_lora, n_tokens = b.weight("attn_kv_a_norm.weight", il).ne[0], b.batch.n_tokens
    both = ops.mul_mat(b.weight("attn_kv_a_mqa.weight", il), x)
    row = both.nb[1]
    latent = ops.strided(both, (n_lora, n_tokens), (row,))
    k_pe = ops.strided(both, (n_rot, 1, n_tokens), (row, row), n_lora * both.nb[0])
    return b.rms(latent, "attn_kv_a_norm", il), rotate(k_pe)


def absorbed(b: Builder, q: Tensor, n_rot: int, rotate: Rotate, il: int) -> Tensor:
    """Q ((N + P)*H, T) as a latent row is asked: (R + P, H, T)."""
    n_head, n_tokens, k_b = b.h.n_head[il], b.batch.n_tokens, b.weight("attn_k_b.weight", il)
    n_nope = k_b.ne[0]
    head = (n_nope + n_rot) * q.nb[0]
    q_nope = ops.strided(q, (n_nope, n_head, n_tokens), (head, head * n_head))
    q_pe = ops.strided(q, (n_rot, n_head, n_tokens), (head, head * n_head), n_nope * q.nb[0])
    q_nope = ops.mul_mat(k_b, ops.permute(q_nope, 0, 2, 1, 3))
    return ops.concat(ops.permute(q_nope, 0, 2, 1, 3), rotate(q_pe), 0)


def attend(
    b: Builder, attention: AttentionK, q: Tensor, latent: Tensor, k_pe: Tensor, il: int,
    *, sinks: Tensor | None = None, mask: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Q (R + P, H, T) asks the cache, to which the row (R, T) and its rotated part are added: (D*H, T).

    A `mask` takes the place of the cache's.
    """
    n_lora = latent.ne[0]
    v = ops.reshape(latent, n_lora, 1, b.batch.n_tokens)
    k = ops.concat(v, k_pe, 0)
    v_mla = b.weight("attn_v_b.weight", il)
    return attention.mix_latent(q, k, n_lora, il, v_mla=v_mla, after_k=v, mask=mask, sinks=sinks)
