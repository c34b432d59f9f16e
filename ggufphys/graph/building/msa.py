"""MiniMax sparse attention: each group of heads attends to the blocks of positions that its indexer scores best.

Blocks are of positions, caches of cells: inputs say which cell a position is in, and which block a cell belongs to. A
decode step gathers the keys and values of the chosen blocks; a prompt attends to all, the others masked.

Legend: D head size, H n_head, K groups (n_head_kv), T tokens, C cells, S streams, P positions, B blocks, N blocks
chosen. Source: llama.cpp 0c1e570 src/models/minimax-m3.cpp; src/llama-kv-cache-msa.cpp.
"""

from ggufphys.arch.caches import INDEXER_VALUES, FullKV
from ggufphys.context import N_CTX_PAD
from ggufphys.gguf import SIZES
from ggufphys.graph import ops
from ggufphys.graph.building.attention import AttentionKV, rotate
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.dsa import IndexerKeys, top_k
from ggufphys.graph.floats import sqrtf
from ggufphys.graph.ir import Tensor
from ggufphys.graph.ops import F16, F32, I32
from ggufphys.graph.rope import Rope

NOTHING = -1e30  # what a block that was not chosen adds to a score


def is_sparse(b: Builder) -> bool:
    """Whether layers with an indexer use it: it takes flash attention, and streams whose cells follow positions."""
    return b.context.flash_attn and (b.context.n_seq_max == 1 or not b.context.kv_unified)


class BlockSparse:
    """What the layers with an indexer share: the inputs, and the caches of its keys."""

    def __init__(self, b: Builder, attention: AttentionKV, rope: Rope) -> None:
        self.b, self.attention, self.rope = b, attention, rope
        cache = next(c for layer in b.caches for c in layer if isinstance(c, FullKV) and c.kind == INDEXER_VALUES)
        self.keys = IndexerKeys(b, cache)
        self.n_kv, self.per_stream, _, self.n_stream = attention.mask.ne
        self.size = b.keys.integer("attention.indexer.block_size")
        # Blocks cover the positions in the cache: of a reserved graph's, which is empty, as few as there may be.
        n_pos = b.batch.n_kv or N_CTX_PAD
        self.n_pos = (n_pos + self.size - 1) & ~(self.size - 1)  # GGML_PAD: whole blocks if these are powers of 2
        self.n_blocks = self.n_pos // self.size
        self.n_chosen = min(b.h.indexer_top_k, self.n_blocks)
        n_tokens, n = b.batch.n_tokens, self.n_stream
        self.bias = ops.new_input(F32, self.n_blocks, n_tokens, name="msa_bias")
        self.pos_mask = ops.new_input(F32, self.n_pos, n_tokens, name="msa_pos_mask")
        self.pos_cell = ops.new_input(I32, self.n_pos, n, name="msa_pos_cell")
        self.pos_cell_f32 = ops.new_input(F32, self.n_pos, n, name="msa_pos_cell")
        self.cell_block = ops.new_input(I32, self.n_kv, n, name="msa_cell_block")
        self.mask = ops.cast(attention.mask, F32)

    def mix(self, x: Tensor, q: Tensor, k: Tensor, v: Tensor, pos: Tensor, il: int) -> Tensor:
        """As `AttentionKV.mix`, over the chosen blocks alone; X (E, T) is what Q, K and V were computed from."""
        b, attention, graph = self.b, self.attention, self.b.graph
        n_idx = b.h.indexer_head_size
        iq, ik = (
            b.heads(b.linear(f"indexer.{name}_proj", il, x), n_idx, n)
            for name, n in (("q", b.keys.integer("attention.indexer.head_count")), ("k", 1))
        )
        iq, ik = b.rms(iq, "indexer.q_norm", il), b.rms(ik, "indexer.k_norm", il)
        iq, ik = b.rope(iq, pos, None, self.rope), b.rope(ik, pos, None, self.rope)
        cache = self.keys.cache_k(il, n_idx, 1)
        self.keys.store_k(cache, ik)
        indexed = self.keys.read_k(cache, n_idx, 1)
        if attention.k_rot is not None:
            q, k = rotate(q, attention.k_rot), rotate(k, attention.k_rot)
        if attention.v_rot is not None:
            v = rotate(v, attention.v_rot)
        for part in (q, k, v):
            graph.expand(part)
        (d_k, n_groups), (d_v, _) = k.ne[:2], v.ne[:2]
        cache_k, cache_v = attention.cache_k(il, d_k, n_groups), attention.cache_v(il, d_v, n_groups)
        attention.store_k(cache_k, k)
        attention.store_v(cache_v, v)
        keys, values = attention.read_k(cache_k, d_k, n_groups), attention.read_v(cache_v, d_v, n_groups)
        if self.per_stream == 1:
            out = self._gathered(q, keys, values, iq, indexed)
        else:
            out = self._masked(q, keys, values, iq, indexed, 0)
            for stream in range(1, self.n_stream):
                out = ops.concat(out, self._masked(q, keys, values, iq, indexed, stream), 1)
        return out if attention.v_rot is None else rotate(out, attention.v_rot)

    # -- decode: one token of each stream

    def _gathered(self, q: Tensor, k: Tensor, v: Tensor, iq: Tensor, indexed: Tensor) -> Tensor:
        """Q (D, H, S) with the keys and values (D, K, C, S) of the chosen blocks, gathered: (D*H, S)."""
        (d, n_groups, n_kv, n), n_pos, size = k.ne, self.n_pos, self.size
        n_idx, n_heads = iq.ne[:2]
        flat = ops.strided(indexed, (n_idx, n_kv, n), indexed.nb[2:])
        by_pos = ops.reshape(ops.get_rows(flat, self.pos_cell), n_idx, n_pos, 1, n)
        scores = ops.mul_mat(by_pos, ops.reshape(iq, n_idx, n_heads, 1, n))
        scores = ops.add_inplace(scores, ops.reshape(self.pos_mask, n_pos, 1, 1, n))
        scores = pool_max(scores, size)
        scores = ops.add(scores, ops.reshape(self.bias, self.n_blocks, 1, 1, n))
        chosen = top_k(scores, self.n_chosen)  # (N, K, 1, S)

        # positions of the blocks, their cells, and rows of keys: cells times groups, plus the group
        n_chosen, n_rows = self.n_chosen, size * self.n_chosen * n_heads
        first = ops.scale(ops.cast(chosen, F32), float(size))
        first = ops.repeat(ops.reshape(first, 1, n_chosen, n_heads, n), size, n_chosen, n_heads, n)
        positions = ops.add(first, ops.reshape(ops.arange(0, size), size, 1, 1))
        positions = ops.cast(ops.reshape(positions, n_rows, n), I32)
        cells = ops.get_rows(ops.reshape(self.pos_cell_f32, 1, n_pos, n), positions)
        cells = ops.reshape(cells, size, n_chosen, n_heads, n)
        rows = ops.add(ops.scale(cells, float(n_groups)), ops.reshape(ops.arange(0, n_groups), 1, 1, n_heads))
        rows = ops.cast(ops.reshape(rows, n_rows, n), I32)

        k, v = (
            self._rows(ops.strided(part, (d, n_groups * n_kv, n), (part.nb[1], part.nb[3])), rows, n_heads * n)
            for part in (k, v)
        )
        mask = ops.get_rows(ops.reshape(self.pos_mask, 1, n_pos, n), positions)
        mask = ops.cast(ops.reshape(mask, size * n_chosen, 1, 1, n_heads * n), F16)
        return self._attend(q, k, v, mask)

    def _rows(self, cache: Tensor, rows: Tensor, n_channels: int) -> Tensor:
        """Rows of a cache in the type that attention reads: (D, positions, 1, channels)."""
        found = ops.get_rows(cache, rows)
        found = ops.reshape(found, cache.ne[0], self.size * self.n_chosen, 1, n_channels)
        wanted = cache.type if SIZES[cache.type].block_size == 1 else F16
        return found if found.type is wanted else ops.cast(found, wanted)

    # -- a prompt: several tokens of each stream

    def _masked(self, q: Tensor, k: Tensor, v: Tensor, iq: Tensor, indexed: Tensor, stream: int) -> Tensor:
        """The tokens of one stream (D*H, T/S); its keys and values are all read, blocks not chosen masked."""
        n_tokens, n_pos, n_blocks, n_kv = self.per_stream, self.n_pos, self.n_blocks, k.ne[2]
        first = stream * n_tokens
        n_idx, n_heads = iq.ne[:2]
        n_rows = n_heads * n_tokens

        def of_tokens(x: Tensor) -> Tensor:  # (n, H, T) to the stream's tokens
            return ops.strided(x, (*x.ne[:2], n_tokens), x.nb[1:3], first * x.nb[2])

        def of_rows(x: Tensor) -> Tensor:  # the same of (n, T), one for all heads
            return ops.strided(x, (x.ne[0], 1, n_tokens), (x.nb[1], x.nb[1]), first * x.nb[1])

        iq, q = of_tokens(iq), of_tokens(q)
        flat = ops.strided(indexed, (n_idx, n_kv), (indexed.nb[2],), stream * indexed.nb[3])
        pos_cell = ops.view(self.pos_cell, (n_pos,), offset=stream * self.pos_cell.nb[1])
        pos_mask, bias = of_rows(self.pos_mask), of_rows(self.bias)
        by_pos = ops.get_rows(flat, pos_cell)
        scores = ops.reshape(ops.mul_mat(by_pos, ops.reshape(iq, n_idx, n_rows)), n_pos, n_heads, n_tokens)
        scores = pool_max(ops.add_inplace(scores, pos_mask), self.size)
        chosen = top_k(ops.add(scores, bias), self.n_chosen)  # (N, K, T)

        nothing = ops.cast(ops.scale(bias, 0.0, NOTHING), F16)
        nothing = ops.repeat(nothing, n_blocks, n_heads, n_tokens)
        zero = ops.scale(ops.cast(chosen, F32), 0.0)
        blocks = ops.set_rows(
            ops.reshape(nothing, 1, n_blocks, n_rows),
            ops.reshape(zero, 1, self.n_chosen, n_rows),
            ops.reshape(chosen, self.n_chosen, n_rows),
        )
        blocks = ops.reshape(blocks, n_blocks, n_heads, n_tokens)
        blocks = ops.cont(ops.permute(blocks, 0, 2, 1, 3))
        blocks = ops.cont(ops.transpose(ops.reshape(blocks, n_blocks, n_rows)))
        cell_block = ops.view(self.cell_block, (n_kv,), offset=stream * self.cell_block.nb[1])
        cells = ops.cont(ops.transpose(ops.get_rows(blocks, cell_block)))
        cells = ops.reshape(cells, n_kv, n_tokens, n_heads)
        visible = self.mask
        visible = ops.strided(visible, (n_kv, n_tokens, 1), (visible.nb[1], visible.nb[3]), stream * visible.nb[3])
        mask = ops.add_inplace(cells, visible)
        mask = ops.cast(ops.reshape(mask, n_kv, n_tokens, 1, n_heads), F16)

        k, v = (ops.view(part, (*part.ne[:3], 1), part.nb, stream * part.nb[3]) for part in (k, v))
        k, v = (ops.permute(part, 0, 3, 1, 2) for part in (k, v))
        return self._attend(q, k, v, mask)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """Q (D, H, T) with keys and values (D, cells, 1, channels), a channel for each group and stream: (D*H, T)."""
        d, n_head, n_tokens = q.ne[:3]
        n_channels = k.ne[3]
        n_per_group = n_head // self.b.h.n_head_kv[0]
        q = ops.reshape(q, d, n_per_group, n_channels, n_head * n_tokens // (n_per_group * n_channels))
        out = ops.flash_attn_ext(ops.permute(q, 0, 2, 3, 1), k, v, mask, 1 / sqrtf(self.b.h.n_embd_head_v))
        out = ops.permute(out, 0, 1, 3, 2)
        if not out.is_contiguous:
            out = ops.cont(out)
        return ops.reshape(out, d * n_head, n_tokens)


# -- ggml's operations


def pool_max(x: Tensor, size: int) -> Tensor:
    """The largest of each `size` elements of a row."""
    return Tensor("POOL_2D", F32, (x.ne[0] // size, *x.ne[1:]), (x,), params=("max", size))
