"""Qwen sparse attention: blocks of cells are scored by the mean of their indexer keys, and whole blocks attended to.

Legend: D indexer head size, H its heads, T tokens, C cells, S streams, R cells of a block, B blocks, N cells chosen.
Source: llama.cpp 0c1e570 src/models/qwen4exp.cpp, build_qsa_top_k; src/llama-memory-hybrid-idx.cpp.
"""

from ggufphys.graph import ops
from ggufphys.graph.building.attention import AttentionKV
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.dsa import IndexerKeys, indexer_cache, top_k
from ggufphys.graph.ir import Tensor
from ggufphys.graph.ops import F32, I32
from ggufphys.graph.rope import Rope


class BlockMeans:
    """The indexers of all layers whose blocks have the same `ratio`: they share inputs."""

    def __init__(self, b: Builder, attention: AttentionKV, pos: Tensor, rope: Rope, ratio: int) -> None:
        cache = next(cache for il in range(b.h.n_layer) if (cache := indexer_cache(b, il)) is not None)
        self.b, self.pos, self.rope, self.ratio = b, pos, rope, ratio
        self.mask = attention.mask
        self.keys = IndexerKeys(b, cache)
        n_kv, n_tokens, _, n = self.mask.ne
        self.n_blocks = -(-n_kv // ratio)
        self.cell_block = ops.new_input(I32, n_kv, n, name="qsa_cell_block", params=(ratio,))
        self.block_cells = ops.new_input(I32, ratio * self.n_blocks, n, name="qsa_block_cells", params=(ratio,))
        self.block_pos = ops.new_input(
            I32, rope.n_pos_per_embd * self.n_blocks * n, name="qsa_block_pos", params=(ratio,)
        )
        self.bias = ops.new_input(F32, self.n_blocks, n_tokens, n, name="qsa_bias", params=(ratio,))

    def top_k(self, x: Tensor, il: int) -> Tensor:
        """The cells that each token of X (E, T) attends to, best first: (N, T/S, 1, S)."""
        b, d, n_blocks = self.b, self.b.h.indexer_head_size, self.n_blocks
        n_kv, n_tokens, _, n = self.mask.ne
        pooled = self._pooled(x, il)
        q = b.linear("indexer.q_proj", il, x)
        n_head = q.ne[0] // d
        q = b.rope(b.rms(b.heads(q, d, n_head), "indexer.q_norm", il), self.pos, None, self.rope)
        scores = ops.mul_mat(pooled, ops.reshape(q, d, n_head * n_tokens, n))
        scores = ops.unary(ops.reshape(scores, n_blocks, n_head, n_tokens, n), "relu")
        shape, strides = (n_blocks, n_tokens, n), scores.nb[2:]
        total = ops.cont(ops.strided(scores, shape, strides))
        for i in range(1, n_head):
            total = ops.add(total, ops.strided(scores, shape, strides, i * scores.nb[1]))
        total = ops.add(total, self.bias)

        # each cell has its block's score
        by_cell = ops.get_rows(ops.cont(ops.permute(total, 1, 0, 2, 3)), self.cell_block)
        by_cell = ops.cont(ops.permute(by_cell, 1, 0, 2, 3))
        mask = self.mask if self.mask.type is F32 else ops.cast(self.mask, F32)
        by_cell = ops.add(by_cell, ops.reshape(mask, n_kv, n_tokens, n))
        n_chosen = min(n_kv, b.h.indexer_top_k + self.ratio - 1)  # whole blocks, and one that is not full
        return ops.reshape(ops.cont(top_k(by_cell, n_chosen)), n_chosen, n_tokens, 1, n)

    def _pooled(self, x: Tensor, il: int) -> Tensor:
        """X's keys stored, and the mean of each block's, normed and rotated: (D, B, S)."""
        b, d, ratio, n_blocks = self.b, self.b.h.indexer_head_size, self.ratio, self.n_blocks
        n_kv, _, _, n = self.mask.ne
        k = b.heads(b.linear("indexer.k_proj", il, x), d, 1)
        cache = self.keys.cache_k(il, d, 1)
        self.keys.store_k(cache, k)
        keys = self.keys.read_k(cache, d, 1)
        keys = ops.strided(keys, (d, n_kv, n), keys.nb[2:])
        members = ops.reshape(ops.get_rows(keys, self.block_cells), d, ratio, n_blocks, n)
        parts = [
            ops.cont(ops.strided(members, (d, n_blocks, n), members.nb[2:], i * members.nb[1])) for i in range(ratio)
        ]
        total = parts[0]
        for part in parts[1:]:
            total = ops.add(total, part)
        mean = ops.reshape(ops.scale(total, 1 / ratio), d, n_blocks * n)
        mean = ops.reshape(b.rms(mean, "indexer.k_norm", il), d, 1, n_blocks * n)
        return ops.reshape(b.rope(mean, self.block_pos, None, self.rope), d, n_blocks, n)
