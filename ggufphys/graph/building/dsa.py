"""Sparse attention by an indexer: a small attention of its own says which positions a token attends to.

Legend: D indexer head size, H its heads, T tokens, C cells, S streams, n_top_k positions chosen.
Source: llama.cpp 0c1e570 src/models/deepseek32.cpp; src/llama-graph.cpp, build_attn with llm_graph_input_attn_k_dsa.
"""

from math import inf

from ggufphys.arch.caches import INDEXER, FullKV
from ggufphys.gguf import GGMLType
from ggufphys.graph import ops
from ggufphys.graph.building.attention import AttentionKV, hadamard
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.floats import sqrtf
from ggufphys.graph.ir import Tensor
from ggufphys.graph.ops import F16, F32, I32
from ggufphys.graph.rope import Rope


def indexer_cache(b: Builder, il: int) -> FullKV | None:
    """The indexer's keys in a layer; None where it has no indexer of its own."""
    return next((cache for cache in b.caches[il] if isinstance(cache, FullKV) and cache.kind == INDEXER), None)


class IndexerKeys(AttentionKV):
    """The caches of indexers' keys, which share their inputs."""

    def cache_k(self, il: int, n_embd_head: int, n_head_kv: int) -> Tensor:
        """Keys of a layer's indexer (D, C, S)."""
        return ops.weight(
            self.b.context.type_k, n_embd_head * n_head_kv, self.n_cells, self.n_stream, params=("k", il, INDEXER)
        )


class Indexer(IndexerKeys):
    """The indexers of all layers that have one."""

    def __init__(self, b: Builder, rope: Rope, *, hadamard_rotated: bool = True) -> None:
        cache = next(cache for il in range(b.h.n_layer) if (cache := indexer_cache(b, il)) is not None)
        super().__init__(b, cache)
        self.rope = rope
        self.by_parts = "indexer_by_parts" in b.context.rules
        self.mask = ops.new_input(F32 if self.by_parts else F16, *self.mask.ne, name="kq_mask", params=(cache,))
        self.hadamard = hadamard(b.h.indexer_head_size) if hadamard_rotated else None

    def top_k(self, x: Tensor, query_row: Tensor, pos: Tensor, il: int) -> Tensor:
        """The cells that each token of X (E, T) attends to, best first: (n_top_k, T/S, 1, S)."""
        b, d = self.b, self.b.h.indexer_head_size
        q = ops.mul_mat(b.weight("indexer.attn_q_b.weight", il), query_row)
        n_head = q.ne[0] // d
        q = self._turned(b.heads(q, d, n_head), pos)
        k = ops.mul_mat(b.weight("indexer.attn_k.weight", il), x)
        k = b.layer_norm(k, "indexer.k_norm", il)
        k = self._turned(b.heads(k, d, 1), pos)
        if self.hadamard is not None:
            q, k = ops.mul_mat(self.hadamard, q), ops.mul_mat(self.hadamard, k)
        cache = self.cache_k(il, d, 1)
        self.store_k(cache, k)
        keys = self.read_k(cache, d, 1)

        weights = ops.mul_mat(b.weight("indexer.proj.weight", il), x)  # (H, T)
        n, per_stream = self.n_read, x.ne[1] // self.n_read
        q = ops.strided(q, (d, n_head, per_stream, n), (q.nb[1], q.nb[2], q.nb[3] // n))
        weights = ops.strided(
            weights, (n_head, per_stream, 1, n), (weights.nb[1], weights.nb[2] // n, weights.nb[3] // n)
        )
        if self.by_parts:
            scores = scores_by_parts(q, keys, weights, 1 / sqrtf(d * n_head), self.mask)
        else:
            weights = ops.scale(weights, 1 / sqrtf(d * n_head))
            scores = lightning_indexer(q, keys, weights, self.mask)
        return ops.cont(top_k(scores, min(scores.ne[0], b.h.indexer_top_k)))

    def _turned(self, x: Tensor, pos: Tensor) -> Tensor:
        """Heads (D, H, T) whose first elements are rotated, once cut off for that and put back."""
        n, d = self.rope.n_dims, x.ne[0]
        if "rope_by_parts" not in self.b.context.rules:
            return self.b.rope(x, pos, None, self.rope)
        turned, still = (
            ops.strided(x, (width, *x.ne[1:3]), x.nb[1:3], first * x.nb[0]) for width, first in ((n, 0), (d - n, n))
        )
        return ops.concat(ops.rope(turned, pos, None, self.rope), still, 0)


def only(mask: Tensor, chosen: Tensor, zeros_type: GGMLType = F32) -> Tensor:
    """The mask (C, T/S, 1, S), minus infinity for all but the chosen cells; these are opened by zeros of that type."""
    everywhere = ops.elementwise("FILL", mask, params=(-inf,))
    cells = ops.view(everywhere, (1, *mask.ne[:2], mask.ne[3]), (mask.nb[0], *mask.nb[:3]))
    rows = ops.view(chosen, (*chosen.ne[:2], chosen.ne[3]), (*chosen.nb[:3], chosen.ne[3] * chosen.nb[3]))
    zeros = ops.elementwise("FILL", Tensor("NONE", zeros_type, (1, *rows.ne[:3])), params=(0.0,))
    opened = ops.set_rows(cells, zeros, rows)
    opened = ops.view(opened, mask.ne, (opened.nb[0], opened.nb[2], opened.nb[3], opened.nb[3]))
    return ops.add(opened, mask)


# -- ggml's operations


def lightning_indexer(q: Tensor, k: Tensor, weights: Tensor, mask: Tensor) -> Tensor:
    """Sum over heads of weights * relu(q k) + mask: (C, T/S, 1, S)."""
    return Tensor("LIGHTNING_INDEXER", F32, (k.ne[2], q.ne[2], 1, q.ne[3]), (q, k, weights, mask))


def scores_by_parts(q: Tensor, k: Tensor, weights: Tensor, factor: float, mask: Tensor) -> Tensor:
    """An indexer's scores in operations of their own, not yet scaled by `factor`. Source: llama.cpp b9432."""
    products = ops.mul_mat(ops.permute(k, 0, 2, 1, 3), ops.permute(q, 0, 2, 1, 3))
    scores = ops.unary(ops.cont(ops.permute(products, 2, 1, 0, 3)), "relu")
    scores = ops.sum_rows(ops.mul(scores, ops.scale(weights, factor)))
    return ops.add(ops.cont(ops.permute(scores, 2, 1, 0, 3)), mask)


def top_k(x: Tensor, k: int) -> Tensor:
    """The numbers of the k largest elements of each row, in no order."""
    return Tensor("TOP_K", I32, (k, *x.ne[1:]), (x,))
