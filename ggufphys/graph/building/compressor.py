"""Attention to compressed positions: each block of `ratio` of them becomes one row, which is kept beside a window.

What becomes of a block's positions is a mixture, element by element, by a softmax of scores that each of them has.
Positions wait in a state until their block is full. Fine blocks overlap: a row is made of two blocks, of the first
halves of one's elements and of the second halves of the other's.

Legend: D size of a compressed row, T tokens, R rows of the state, B blocks completed by the batch, C cells, S streams.
Source: llama.cpp 0c1e570 src/models/deepseek4.cpp, build_overlap_compressed_kv_from_state,
build_hca_compressed_kv_from_state; src/llama-kv-cache-dsv4.cpp, dsv4_build_comp_plan, dsv4_build_reserve_comp_plan;
src/llama-graph.cpp, dsv4_build_comp_inputs.
"""

from math import inf
from typing import Final, Literal

from ggufphys.arch.caches import INDEXER, BlockKV
from ggufphys.context import N_CTX_PAD, pad_ctx
from ggufphys.gguf import GGMLType
from ggufphys.graph import ops
from ggufphys.graph.building.attention import AttentionKV, hadamard, rotate, rotation
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.ir import Tensor
from ggufphys.graph.ops import F16, F32, I32, I64
from ggufphys.graph.rope import Rope

OVERLAPPING: Final = 4  # the ratio of fine blocks
StatePart = Literal["kv", "score"]
STATE_PARTS: Final[tuple[StatePart, StatePart]] = ("kv", "score")


def block_cache(b: Builder, il: int, kind: str) -> BlockKV | None:
    """The layer's rows of that kind, if it keeps blocks."""
    return next((c for c in b.caches[il] if isinstance(c, BlockKV) and c.kind == kind), None)


def k_rotation(b: Builder, n_embd_head: int) -> Tensor | None:
    """The matrix that rotates rows of a cache of keys: quantised ones, and all where indexers' are as wide."""
    if b.h.n_embd_head_k == b.h.indexer_head_size:
        return hadamard(n_embd_head)
    return rotation(b.context.type_k, n_embd_head, largest=True) if n_embd_head % 64 == 0 else None


class Blocks(AttentionKV):
    """The compressed rows of all layers with blocks of one ratio and kind: they share their inputs."""

    def __init__(self, b: Builder, cache: BlockKV, rope: Rope) -> None:
        super().__init__(b, cache)
        batch, n_rs_seq = b.batch, b.context.n_rs_seq
        self.cache, self.rope = cache, rope
        self.kind, self.ratio, self.width = cache.kind, cache.ratio, cache.n_embd_k_gqa
        self.name = "lid" if cache.kind == INDEXER else "csa" if cache.ratio == OVERLAPPING else "hca"
        self.overlaps = cache.ratio == OVERLAPPING
        self.n_parts = 2 if self.overlaps else 1
        n_seq_tokens, state_size = batch.n_tokens // batch.n_seqs, self.n_parts * self.ratio
        self.n_state_rows = state_size * self.n_stream
        if batch.n_kv is None:  # reserved: wherever sequences may be split
            self.n_visible = self.n_cells
            n_blocks = batch.n_tokens // self.ratio + batch.n_seqs
            n_kept = min(batch.n_tokens, self.n_state_rows)
        else:
            self.n_visible = min(self.n_cells, max(pad_ctx(batch.n_kv // self.ratio), N_CTX_PAD))
            counted = batch.blocks_of(self.ratio)
            n_new = n_seq_tokens // self.ratio * batch.n_seqs if counted is None else counted.n_new
            padded = self.overlaps and self.n_stream > 1  # fine blocks of several sequences: as many of each
            n_blocks = -(-n_seq_tokens // self.ratio) * batch.n_seqs if padded else max(n_new, 1)
            n_kept = min(n_seq_tokens, state_size) * batch.n_seqs
        mask_type = F16 if b.context.flash_attn or cache.kind == INDEXER else F32
        self.mask = self._input("mask", mask_type, self.n_visible, *self.mask.ne[1:])
        self.rot = hadamard(self.width) if cache.kind == INDEXER else k_rotation(b, self.width)
        self.places = self._input("places", I32, batch.n_tokens)
        self.read_idxs = self._input("read_idxs", I32, state_size * n_blocks)
        self.k_idxs = self._input("write_idxs", I64, n_blocks)
        self.pos = self._input("write_pos", I32, n_blocks)
        self.kept = self._moves("kept", n_kept)
        self.restored = self._moves("restored", self.n_state_rows) if n_rs_seq else None
        self.snapshot = self._moves("snapshot", n_rs_seq * self.n_state_rows) if n_rs_seq else None

    def _input(self, what: str, ggml_type: GGMLType, *ne: int) -> Tensor:
        return ops.new_input(ggml_type, *ne, name=f"block_{what}", params=(self.cache,))

    def _moves(self, what: str, n: int) -> tuple[Tensor, Tensor]:
        """Two inputs of `n`: the rows that are read, and the rows that they are written to."""
        return self._input(f"{what}_from", I32, n), self._input(f"{what}_to", I32, n)

    def cache_k(self, il: int, n_embd_head: int, n_head_kv: int) -> Tensor:
        """Compressed rows of a layer (D, C, S)."""
        width = n_embd_head * n_head_kv
        return ops.weight(self.b.context.type_k, width, self.n_cells, self.n_stream, params=("k", il, self.kind))

    def keys(self, il: int) -> Tensor:
        """The rows that the batch may see (D, 1, C, S)."""
        keys = self.read_k(self.cache_k(il, self.width, 1), self.width, 1)
        return ops.view(keys, (self.width, 1, self.n_visible, self.n_read), keys.nb)

    def store(self, x: Tensor, il: int) -> None:
        """Compress what blocks X (E, T) completes, and keep the last positions, whose blocks are not full yet."""
        b, graph = self.b, self.b.graph
        new_kv, new_score = (b.mul_mat(self._weight(name, il), x) for name in ("kv", "gate"))
        new_score = ops.add(new_score, ops.get_rows(self._weight("ape", il), self.places))
        new = (new_kv, new_score)
        old = tuple(self._restored(part, il) for part in STATE_PARTS)
        now = [ops.strided(rows, (rows.ne[0], self.n_state_rows), (rows.nb[1],)) for rows in old]
        comp = self._compressed(ops.concat(now[0], new_kv, 1), ops.concat(now[1], new_score, 1), il)
        comp = comp if self.rot is None else rotate(comp, self.rot)
        self.store_k(self.cache_k(il, self.width, 1), comp)
        if self.snapshot is not None:
            for part, o, n in zip(STATE_PARTS, old, new, strict=True):
                graph.expand(self._moved(part, ops.concat(o, n, 1), self.snapshot, il))
        for part, n in zip(STATE_PARTS, new, strict=True):
            graph.expand(self._moved(part, n, self.kept, il))

    # -- the state

    def _state(self, part: StatePart, il: int) -> Tensor:
        """All rows of the state (D or 2*D, R), and behind them those of drafted tokens that can be taken back."""
        n_planes = 1 + self.b.context.n_rs_seq
        width, n_rows = self.n_parts * self.width, self.n_state_rows // self.n_stream
        state = ops.weight(F32, width, n_rows, self.n_stream * n_planes, params=(f"{self.name}_state_{part}", il))
        return ops.strided(state, (width, self.n_state_rows * n_planes), (state.nb[1],))

    def _restored(self, part: StatePart, il: int) -> Tensor:
        state = self._state(part, il)
        return state if self.restored is None else self._moved(part, state, self.restored, il)

    def _moved(self, part: StatePart, rows: Tensor, moves: tuple[Tensor, Tensor], il: int) -> Tensor:
        """The state, some rows of it replaced."""
        return ops.set_rows(self._state(part, il), ops.get_rows(rows, moves[0]), moves[1])

    # -- compression

    def _weight(self, name: str, il: int) -> Tensor:
        owner = "indexer" if self.kind == INDEXER else "attn"
        return self.b.weight(f"{owner}_compressor_{name}.weight", il)

    def _compressed(self, kv: Tensor, score: Tensor, il: int) -> Tensor:
        """The rows of completed blocks (D, 1, B), rotated as of each block's first position."""
        if self.overlaps:  # in front of the first block is a row of nothing
            kv, score = _with_row(kv, 0.0), _with_row(score, -inf)
        values, scores = (self._gathered(ops.get_rows(rows, self.read_idxs)) for rows in (kv, score))
        mixed = ops.sum_rows(ops.mul(values, ops.soft_max(scores)))
        mixed = ops.cont(ops.permute(mixed, 1, 0, 2, 3))
        mixed = self.b.norm_rms(mixed, self._weight("norm", il))
        return self.b.rope(mixed, self.pos, None, self.rope)

    def _gathered(self, rows: Tensor) -> Tensor:
        """Rows of blocks' positions (D or 2*D, ...) as (positions, D, B): of overlapping blocks each half's own."""
        d, n_blocks = self.width, self.pos.ne[0]
        if not self.overlaps:
            return ops.cont(ops.permute(ops.reshape(rows, d, self.ratio, n_blocks), 1, 0, 2, 3))
        n, offset = self.ratio * n_blocks, d * rows.nb[0]
        first = ops.cont(ops.strided(rows, (d, n), (rows.nb[1],)))
        second = ops.cont(ops.strided(rows, (d, n), (rows.nb[1],), n * rows.nb[1] + offset))
        first, second = (ops.reshape(half, d, self.ratio, n_blocks) for half in (first, second))
        return ops.cont(ops.permute(ops.concat(first, second, 1), 1, 0, 2, 3))


def _with_row(rows: Tensor, value: float) -> Tensor:
    """The rows and another of that value, which is made of the first."""
    row = ops.scale(ops.view(rows, (rows.ne[0],)), 0.0, value)
    return ops.concat(rows, ops.reshape(row, rows.ne[0], 1), 1)
