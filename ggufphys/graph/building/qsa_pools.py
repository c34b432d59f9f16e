"""Qwen sparse attention since b11352: a block's key is computed once, when it is full, and kept beside its cells'.

The cache holds a row for each position: its key, and room for its block's. A token attends to the cells of the best
blocks, and to those behind the last block that is full.

Legend: D indexer head size, P cells of a block, M blocks, T tokens, C cells, N cells chosen.
Source: llama.cpp b11434 src/models/qwen4exp.cpp, build_inp_kpool, build_qsa_sel; src/llama-memory-hybrid-idx.cpp,
kpool_access.
"""

from math import inf

from ggufphys.arch.caches import INDEXER, row_bytes
from ggufphys.gguf import GGMLType
from ggufphys.graph import ops
from ggufphys.graph.building.attention import AttentionKV
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.dsa import indexer_cache, lightning_indexer, top_k
from ggufphys.graph.building.kpool import pool_counts
from ggufphys.graph.floats import sqrtf
from ggufphys.graph.ir import Tensor
from ggufphys.graph.ops import F16, F32, I32, I64
from ggufphys.graph.rope import Rope


class PooledBlocks:
    """The inputs that say which cells are blocks, shared by all layers, and the nodes of one layer that choose."""

    def __init__(self, b: Builder, rope: Rope, size: int) -> None:
        n_tokens = b.batch.n_tokens
        cache = next(cache for il in range(b.h.n_layer) if (cache := indexer_cache(b, il)) is not None)
        self.b, self.rope, self.size = b, rope, size
        self.keys = AttentionKV(b, cache)
        self.n_pools, self.n_new = pool_counts(b, self.keys, size)
        self.n_top = min(self.n_pools, b.h.indexer_top_k // size)
        self.n_chosen = size * self.n_top + size - 1
        params = (cache, size, self.n_top)
        self.pool_cells = ops.new_input(I32, self.n_pools, name="pool_cells", params=params)
        self.pool_idxs = ops.new_input(I32, size, self.n_pools, name="pool_idxs", params=params)
        self.by_head = "block_scores_by_head" in b.context.rules
        mask_type = F32 if self.by_head else F16
        self.pool_mask = ops.new_input(mask_type, self.n_pools, n_tokens, name="pool_mask", params=params)
        self.tail_idxs = ops.new_input(I32, size - 1, n_tokens, name="tail_idxs", params=params)
        for tensor in (self.pool_cells, self.pool_idxs, self.pool_mask, self.tail_idxs):
            b.graph.expand(tensor)  # llama.cpp keeps them whether they are read or not
        self.new_pool_idxs = ops.new_input(I32, size, self.n_new, name="new_pool_idxs", params=params)
        self.new_pool_cells = ops.new_input(I64, self.n_new, name="new_pool_cells", params=params)
        self.new_pool_pos = ops.new_input(I32, rope.n_pos_per_embd * self.n_new, name="new_pool_pos", params=params)

    def mask(self, x: Tensor, pos: Tensor, mask: Tensor, il: int) -> Tensor:
        """The cache's mask (C, T/S, 1, S), minus infinity for all but the cells that each token of X (E, T) chooses."""
        b, d, n_tokens = self.b, self.b.h.indexer_head_size, x.ne[1]
        n_kv, n, n_top = mask.ne[0], self.n_chosen, self.n_top
        pooled = self._keys(x, il)
        q = b.linear("indexer.q_proj", il, x)
        n_head = q.ne[0] // d
        q = b.rope(b.rms(b.heads(q, d, n_head), "indexer.q_norm", il), pos, None, self.rope)
        if self.by_head:
            scores = self._scores_by_head(q, pooled)
        else:
            scores = lightning_indexer(q, pooled, _filled(F32, 1 / sqrtf(d), n_head, n_tokens), self.pool_mask)
        best = top_k(scores, n_top)
        chosen = ops.get_rows(self.pool_idxs, ops.reshape(best, n_top * n_tokens))
        chosen = ops.concat(ops.reshape(chosen, self.size * n_top, n_tokens), self.tail_idxs, 0)
        b.graph.expand(chosen)

        closed, zeros = (
            ops.reshape(ops.repeat(_filled(mask.type, value, width), width, n_tokens), 1, width, n_tokens)
            for width, value in ((n_kv + n, -inf), (n, 0.0))
        )
        # What stands for no cell opens a row of its own behind all cells, so that no row is written twice.
        score = ops.get_rows(ops.reshape(scores, 1, self.n_pools, n_tokens), best)
        live = ops.clamp(ops.scale(score, 1.0, 1.0), 0.0, 1.0)
        live = ops.reshape(ops.repeat(live, self.size, n_top, n_tokens), self.size * n_top, n_tokens)
        tail = ops.clamp(ops.scale(ops.cast(self.tail_idxs, F32), -1.0, float(n_kv)), 0.0, 1.0)
        live = ops.concat(live, tail, 0)
        behind = ops.scale(cumsum(ops.elementwise("FILL", live, params=(1.0,))), 1.0, float(n_kv - 1))
        cells = ops.mul(ops.sub(ops.cast(chosen, F32), behind), live)
        cells = ops.cast(ops.add(cells, behind), I32)
        opened = ops.set_rows(closed, zeros, ops.reshape(cells, n, n_tokens, 1))
        row = opened.nb[2]
        opened = ops.strided(opened, mask.ne, (row, row * mask.ne[1], row * mask.ne[1] * mask.ne[2]))
        return ops.add(opened, mask)

    def _scores_by_head(self, q: Tensor, k: Tensor) -> Tensor:
        """Scores in operations of their own: a product for all heads, which are added up one by one: (M, T)."""
        d, n_head, n_tokens = q.ne[:3]
        products = ops.mul_mat(ops.reshape(k, d, self.n_pools), ops.reshape(q, d, n_head * n_tokens))
        products = ops.unary(ops.reshape(products, self.n_pools, n_head, n_tokens), "relu")
        first, *others = (
            ops.strided(products, (self.n_pools, n_tokens), products.nb[2:3], i * products.nb[1]) for i in range(n_head)
        )
        total = ops.cont(first)
        for part in others:
            total = ops.add(total, part)
        return ops.add(ops.scale(total, 1 / sqrtf(d)), self.pool_mask)

    def _keys(self, x: Tensor, il: int) -> Tensor:
        """The blocks' keys (D, 1, M), those included that this batch fills."""
        b, d, n_tokens = self.b, self.b.h.indexer_head_size, x.ne[1]
        packed = ops.concat(b.linear("indexer.k_proj", il, x), _filled(F32, 0.0, d, n_tokens), 0)
        cache = ops.weight(
            b.context.type_k, 2 * d, self.keys.n_cells, self.keys.n_stream, params=("k", il, INDEXER)
        )  # fmt: skip
        self.keys.store_k(cache, ops.reshape(packed, 2 * d, 1, n_tokens))

        n_cells, row = cache.ne[1] * cache.ne[2], (cache.nb[1],)
        of_positions = ops.strided(cache, (d, n_cells), row)
        of_blocks = ops.strided(cache, (d, n_cells), row, row_bytes(cache.type, d))
        new = self._means(of_positions, il)
        b.graph.expand(ops.set_rows(of_blocks, new, self.new_pool_cells))
        return ops.reshape(ops.get_rows(of_blocks, self.pool_cells), d, 1, self.n_pools)

    def _means(self, cells: Tensor, il: int) -> Tensor:
        """The keys of new blocks (D, M): the mean of their cells', normed and rotated to the first one's position."""
        b, d, size, n_new = self.b, self.b.h.indexer_head_size, self.size, self.n_new
        rows = ops.get_rows(cells, ops.reshape(self.new_pool_idxs, size * n_new))
        rows = ops.reshape(rows, d, size, n_new)
        first, *others = (ops.strided(rows, (d, n_new), rows.nb[2:3], i * rows.nb[1]) for i in range(size))
        total = ops.cont(first)
        for part in others:
            total = ops.add(total, part)
        mean = b.rms(ops.scale(total, 1 / size), "indexer.k_norm", il)
        mean = b.rope(ops.reshape(mean, d, 1, n_new), self.new_pool_pos, None, self.rope)
        return ops.reshape(mean, d, n_new)


def cumsum(x: Tensor) -> Tensor:
    """The sum of each row up to each element."""
    return Tensor("CUMSUM", x.type, x.ne, (x,))


def _filled(ggml_type: GGMLType, value: float, *ne: int) -> Tensor:
    return ops.elementwise("FILL", Tensor("NONE", ggml_type, ne), params=(value,))
