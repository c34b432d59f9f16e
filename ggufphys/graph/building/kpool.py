"""Sparse attention whose indexer scores pools of consecutive positions by one key, computed from theirs.

The cache holds a row for each position: its key, a gate that weighs it in its pool, and room for the pool's key, which
stands in the row of the pool's last position. A token attends to the positions of the best pools, and to those behind
the last pool that is full, the tail.

Legend: D indexer head size, H its heads, P positions in a pool, M pools, T tokens, C cells, S streams, N positions
chosen. Source: llama.cpp 0c1e570 src/models/glm5-next.cpp, build_inp_kpool, build_kpool_select;
src/llama-memory-hybrid-idx.cpp, kpool_pad, kpool_build_sizes, kpool_access.
"""

from math import inf
from typing import Final

from ggufphys.arch.caches import INDEXER, row_bytes
from ggufphys.context import pad_ctx
from ggufphys.graph import ops
from ggufphys.graph.building.attention import AttentionKV
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.dsa import indexer_cache, lightning_indexer, top_k
from ggufphys.graph.floats import sqrtf
from ggufphys.graph.ir import Tensor
from ggufphys.graph.ops import F16, F32, I32, I64

N_POOL_PAD: Final = 64
N_TOKENS_GATHERED: Final = 16  # batches up to this attend to copies of the chosen rows alone, larger ones by a mask


def pool_counts(b: Builder, keys: AttentionKV, n_pool_size: int) -> tuple[int, int]:
    """How many pools a graph has room for, and how many of them its batch completes: one at least."""
    n_new, n_whole = _counts(b, keys, n_pool_size)
    return max(N_POOL_PAD, -(-(n_whole + 1) // N_POOL_PAD) * N_POOL_PAD), max(n_new, 1)


def _counts(b: Builder, keys: AttentionKV, n_pool_size: int) -> tuple[int, int]:
    """How many pools the batch completes, and how many there are then."""
    batch = b.batch
    if batch.n_kv is None:  # reserved: all that there may be, each of them new
        n = keys.n_cells // n_pool_size * b.context.n_seq_max
        return n, n
    counted = batch.blocks_of(n_pool_size)
    if counted is not None:
        return counted.n_new, counted.n_whole
    n_new = batch.n_tokens // batch.n_seqs // n_pool_size * batch.n_seqs
    if pad_ctx(batch.n_tokens // keys.n_read) == keys.n_kv:  # nothing before it, as far as cells tell
        return n_new, n_new
    return n_new, (keys.n_kv - 1) // n_pool_size * keys.n_read  # with the last cell not yet in use


class Pools:
    """The inputs that say which cells are pools, shared by all layers, and the nodes of one layer that choose."""

    def __init__(self, b: Builder) -> None:
        h, batch = b.h, b.batch
        n_tokens, n_pool_size = batch.n_tokens, h.indexer_kpool
        cache = next(cache for il in range(len(b.caches)) if (cache := indexer_cache(b, il)) is not None)
        self.b = b
        self.keys = AttentionKV(b, cache)  # for its cells and where batches are stored
        n_kv = self.keys.n_kv
        self.n_pools, self.n_new = pool_counts(b, self.keys, n_pool_size)
        self.n_top = min(self.n_pools, h.indexer_top_k // n_pool_size)
        self.has_tail = b.keys.flag("attention.indexer.kpool_select_tail", True)
        self.n_chosen = n_pool_size * self.n_top + (n_pool_size - 1 if self.has_tail else 0)
        if "pools_masked_always" in b.context.rules:
            self.gathers = False
        elif "pools_filled_anew" in b.context.rules:  # whatever the batch and the cells in use
            most = h.indexer_top_k + n_pool_size - 1
            self.gathers = b.context.n_ubatch <= N_TOKENS_GATHERED and b.context.n_ctx > most
        else:
            self.gathers = n_tokens <= N_TOKENS_GATHERED and n_kv > self.n_chosen

        params = (cache, n_pool_size, self.n_top, self.gathers, n_kv)
        self.pool_cells = ops.new_input(I32, self.n_pools, name="pool_cells", params=params)
        self.pool_idxs = ops.new_input(I32, n_pool_size, self.n_pools, name="pool_idxs", params=params)
        self.pool_mask = ops.new_input(F16, self.n_pools, n_tokens, name="pool_mask", params=params)
        self.tail_idxs = ops.new_input(I32, n_pool_size - 1, n_tokens, name="tail_idxs", params=params)
        self.chosen_mask = ops.new_input(F32, self.n_chosen, 1, 1, n_tokens, name="chosen_mask", params=params)
        self.new_pool_idxs = ops.new_input(I32, n_pool_size, self.n_new, name="new_pool_idxs", params=params)
        self.new_pool_cells = ops.new_input(I64, self.n_new, name="new_pool_cells", params=params)
        for tensor in (self.pool_cells, self.pool_idxs, self.pool_mask, self.tail_idxs, self.chosen_mask):
            b.graph.expand(tensor)  # llama.cpp keeps them whether they are read or not

    def choose(self, x: Tensor, query_row: Tensor, il: int) -> Tensor:
        """The cells that each token of X (E, T) attends to: (N, T), best first. What stands for none is masked."""
        b, d = self.b, self.b.h.indexer_head_size
        q = ops.mul_mat(b.weight("indexer.attn_q_b.weight", il), query_row)
        q = b.heads(q, d, q.ne[0] // d)
        pooled = self._keys(x, il)
        weights = ops.mul_mat(b.weight("indexer.proj.weight", il), x)
        weights = ops.scale(weights, 1 / sqrtf(q.ne[0] * q.ne[1]))
        scores = lightning_indexer(q, pooled, weights, self.pool_mask)

        n_top, n_tokens, n_pools = self.n_top, x.ne[1], self.n_pools
        best = top_k(scores, n_top)
        order = ops.get_rows(ops.reshape(scores, 1, n_pools, n_tokens), best)
        order = ops.argsort(ops.reshape(order, n_top, n_tokens))
        best = ops.get_rows(ops.reshape(ops.cast(best, F32), 1, n_top, n_tokens), order)
        best = ops.cast(ops.cont(ops.reshape(best, n_top, n_tokens)), I32)
        chosen = ops.get_rows(self.pool_idxs, ops.reshape(best, n_top * n_tokens))
        chosen = ops.reshape(chosen, self.pool_idxs.ne[0] * n_top, n_tokens)
        return ops.concat(chosen, self.tail_idxs, 0) if self.has_tail else chosen

    def _keys(self, x: Tensor, il: int) -> Tensor:
        """The pools' keys (D, 1, M), those included that this batch completes."""
        b, d, n_tokens = self.b, self.b.h.indexer_head_size, x.ne[1]
        k = ops.mul_mat(b.weight("indexer.attn_k.weight", il), x)
        k = b.layer_norm(k, "indexer.k_norm", il)
        gate = ops.mul_mat(b.weight("indexer_compressor_gate.weight", il), x)
        room = ops.elementwise("FILL", Tensor("NONE", F32, (d, n_tokens)), params=(0.0,))
        rows = ops.concat(ops.concat(k, gate, 0), room, 0)
        cache = ops.weight(
            b.context.type_k, 3 * d, self.keys.n_cells, self.keys.n_stream, params=("k", il, INDEXER)
        )  # fmt: skip
        self.keys.store_k(cache, ops.reshape(rows, 3 * d, 1, n_tokens))

        n_cells, row = cache.ne[1] * cache.ne[2], (cache.nb[1],)
        of_positions = ops.strided(cache, (2 * d, n_cells), row)
        of_pools = ops.strided(cache, (d, n_cells), row, row_bytes(cache.type, 2 * d))
        new = self._pooled(of_positions, il)
        b.graph.expand(ops.set_rows(of_pools, new, self.new_pool_cells))
        return ops.reshape(ops.get_rows(of_pools, self.pool_cells), d, 1, self.n_pools)

    def _pooled(self, cells: Tensor, il: int) -> Tensor:
        """The keys of new pools (D, M): each element is a mixture of the positions', by a softmax of their gates."""
        d, (n_pool_size, n_new) = self.b.h.indexer_head_size, self.new_pool_idxs.ne[:2]
        rows = ops.get_rows(cells, ops.reshape(self.new_pool_idxs, n_pool_size * n_new))
        rows = ops.reshape(rows, 2 * d, n_pool_size, n_new)
        shape, strides = (d, n_pool_size, n_new), rows.nb[1:3]
        gate = ops.strided(rows, shape, strides, d * rows.nb[0])
        gate = ops.add(gate, self.b.weight("indexer_compressor_ape.weight", il))
        gate = ops.cont(ops.permute(gate, 1, 0, 2, 3))
        probs = ops.soft_max(ops.reshape(gate, n_pool_size, d * n_new))
        probs = ops.reshape(probs, n_pool_size, d, n_new)
        k = ops.cont(ops.permute(ops.strided(rows, shape, strides), 1, 0, 2, 3))
        return ops.reshape(ops.sum_rows(ops.mul(probs, k)), d, n_new)

    def mask(self, chosen: Tensor, mask: Tensor) -> Tensor:
        """The cache's mask (C, T/S, 1, S), minus infinity for all but the chosen cells (N, T): (C, T), or as it is.

        What stands for no cell opens a row of its own behind all cells, so that no row is written twice.
        """
        n, n_tokens, n_kv = self.n_chosen, self.b.batch.n_tokens, self.keys.n_kv
        if "pools_filled_anew" in self.b.context.rules:
            self.b.graph.expand(chosen)
            closed, zeros = (
                ops.repeat(ops.elementwise("FILL", Tensor("NONE", mask.type, (size,)), params=(value,)), size, n_tokens)
                for size, value in ((n_kv + n, -inf), (n, 0.0))
            )
        else:
            seed = ops.cast(ops.view(chosen, (1,)), F32)
            closed = seed if mask.type is F32 else ops.cast(seed, mask.type)
            closed = ops.repeat(ops.elementwise("FILL", closed, params=(-inf,)), 1, n_kv + n, n_tokens)
            zeros = ops.repeat(ops.elementwise("FILL", seed, params=(0.0,)), 1, n, n_tokens)
        closed, zeros = ops.reshape(closed, 1, n_kv + n, n_tokens), ops.reshape(zeros, 1, n, n_tokens)
        live = ops.unary(ops.reshape(self.chosen_mask, n, n_tokens), "exp")
        behind = ops.arange(n_kv, n_kv + n)
        cells = ops.mul(ops.sub(ops.cast(chosen, F32), behind), live)
        cells = ops.cast(ops.add(cells, behind), I32)
        opened = ops.set_rows(closed, zeros, ops.reshape(cells, n, n_tokens, 1))
        row = opened.nb[2]
        if "choice_as_mask" in self.b.context.rules:
            opened = ops.strided(opened, mask.ne, (row, row * mask.ne[1], row * mask.ne[1] * mask.ne[2]))
            return ops.add(opened, mask)
        opened = ops.strided(opened, (n_kv, n_tokens), (row,))
        return ops.add(opened, ops.reshape(mask, n_kv, n_tokens))
