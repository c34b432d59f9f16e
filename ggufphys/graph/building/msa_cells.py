"""MiniMax sparse attention up to b10236: blocks were of cells, and indexers' keys in F32 beside the usual caches.

Legend as in `msa`. Source: llama.cpp b10235 src/models/minimax-m3.cpp; src/llama-kv-cache.cpp, cpy_k_idx, get_k_idx.
"""

from ggufphys.arch.caches import INDEXER, IndexerF32
from ggufphys.graph import ops
from ggufphys.graph.building.attention import AttentionKV
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.dsa import IndexerKeys, top_k
from ggufphys.graph.building.msa import NOTHING, BlockSparse, pool_max
from ggufphys.graph.ir import Tensor
from ggufphys.graph.ops import F16, F32, I32
from ggufphys.graph.rope import Rope


class _Keys(IndexerKeys):
    """They are stored where the batch's other keys are."""

    def __init__(self, b: Builder, cache: IndexerF32, attention: AttentionKV) -> None:
        super().__init__(b, cache)
        self.k_idxs = attention.k_idxs

    def cache_k(self, il: int, n_embd_head: int, n_head_kv: int) -> Tensor:
        """Keys of a layer's indexer (D, C, S)."""
        return ops.weight(F32, n_embd_head * n_head_kv, self.n_cells, self.n_stream, params=("k", il, INDEXER))


class BlockSparseOfCells(BlockSparse):
    """As `BlockSparse`, where a block's number is that of its cells."""

    def __init__(self, b: Builder, attention: AttentionKV, rope: Rope) -> None:
        self.b, self.attention, self.rope = b, attention, rope
        cache = next(c for layer in b.caches for c in layer if isinstance(c, IndexerF32))
        self.keys = _Keys(b, cache, attention)
        self.n_kv, self.per_stream, _, self.n_stream = attention.mask.ne
        self.size = b.keys.integer("attention.indexer.block_size")
        self.n_blocks = self.n_kv // self.size
        self.n_chosen = min(b.h.indexer_top_k, self.n_blocks)
        self.bias = ops.new_input(F32, self.n_blocks, b.batch.n_tokens, name="msa_bias")
        self.mask = ops.cast(attention.mask, F32)

    def _gathered(self, q: Tensor, k: Tensor, v: Tensor, iq: Tensor, indexed: Tensor) -> Tensor:
        (d, n_groups, n_kv, n), size, n_chosen = k.ne, self.size, self.n_chosen
        n_idx, n_heads = iq.ne[:2]
        keys = ops.strided(indexed, (n_idx, n_kv, 1, n), (indexed.nb[2], indexed.nb[3], indexed.nb[3]))
        scores = ops.mul_mat(keys, ops.reshape(iq, n_idx, n_heads, 1, n))
        scores = pool_max(ops.add_inplace(scores, self.mask), size)
        scores = ops.add(scores, ops.reshape(self.bias, self.n_blocks, 1, 1, n))
        chosen = top_k(scores, n_chosen)  # (N, K, 1, S)

        n_rows = size * n_chosen * n_heads
        first = ops.reshape(ops.scale(ops.cast(chosen, F32), float(size)), 1, n_chosen, n_heads, n)
        cells = ops.repeat(first, size, n_chosen, n_heads, n)
        cells = ops.add(cells, ops.reshape(ops.arange(0, size), size, 1, 1))
        rows = ops.add(ops.scale(cells, float(n_groups)), ops.reshape(ops.arange(0, n_groups), 1, 1, n_heads))
        cells, rows = (ops.cast(ops.reshape(part, n_rows, n), I32) for part in (cells, rows))
        k, v = (
            self._rows(ops.strided(part, (d, n_groups * n_kv, n), (part.nb[1], part.nb[3])), rows, n_heads * n)
            for part in (k, v)
        )
        mask = ops.get_rows(ops.reshape(self.attention.mask, 1, n_kv, n), cells)
        mask = ops.cast(ops.reshape(mask, size * n_chosen, 1, 1, n_heads * n), F16)
        return self._attend(q, k, v, mask)

    def _masked(self, q: Tensor, k: Tensor, v: Tensor, iq: Tensor, indexed: Tensor, stream: int) -> Tensor:
        n_tokens, n_blocks, n_kv = self.per_stream, self.n_blocks, k.ne[2]
        first = stream * n_tokens
        n_idx, n_heads = iq.ne[:2]
        n_rows = n_heads * n_tokens
        full, usual = self.mask, self.attention.mask
        iq, q = (ops.strided(x, (*x.ne[:2], n_tokens), x.nb[1:3], first * x.nb[2]) for x in (iq, q))
        keys = ops.strided(indexed, (n_idx, n_kv), (indexed.nb[2],), stream * indexed.nb[3])
        full = ops.strided(full, (n_kv, 1, n_tokens), (full.nb[1], full.nb[1]), stream * full.nb[3])
        usual = ops.strided(usual, (n_kv, n_tokens, 1), (usual.nb[1], usual.nb[3]), stream * usual.nb[3])
        bias = self.bias
        bias = ops.strided(bias, (n_blocks, 1, n_tokens), (bias.nb[1], bias.nb[1]), first * bias.nb[1])
        scores = ops.reshape(ops.mul_mat(keys, ops.reshape(iq, n_idx, n_rows)), n_kv, n_heads, n_tokens)
        scores = pool_max(ops.add_inplace(scores, full), self.size)
        chosen = top_k(ops.add(scores, bias), self.n_chosen)  # (N, K, T)

        nothing = ops.repeat(ops.cast(ops.scale(bias, 0.0, NOTHING), F16), n_blocks, n_heads, n_tokens)
        zero = ops.scale(ops.cast(chosen, F32), 0.0)
        blocks = ops.set_rows(
            ops.reshape(nothing, 1, n_blocks, n_rows),
            ops.reshape(zero, 1, self.n_chosen, n_rows),
            ops.reshape(chosen, self.n_chosen, n_rows),
        )
        blocks = ops.cont(ops.permute(ops.reshape(blocks, n_blocks, n_heads, n_tokens), 0, 2, 1, 3))
        cells = ops.repeat(ops.reshape(blocks, 1, n_blocks, n_rows), self.size, n_blocks, n_rows, 1)
        mask = ops.add_inplace(ops.reshape(cells, n_kv, n_tokens, n_heads), usual)
        mask = ops.reshape(mask, n_kv, n_tokens, 1, n_heads)
        k, v = (ops.view(part, (*part.ne[:3], 1), part.nb, stream * part.nb[3]) for part in (k, v))
        k, v = (ops.permute(part, 0, 3, 1, 2) for part in (k, v))
        return self._attend(q, k, v, mask)
