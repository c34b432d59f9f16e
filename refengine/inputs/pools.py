"""Inputs of sparse attention by pools: which cells are a pool, which pools a batch completes, and who may see them.

A sequence's pools are its positions from 0 on, so many at a time. Legend: T tokens, M pools, P positions in a pool.
Source: llama.cpp 0c1e570 src/llama-memory-hybrid-idx.cpp, kpool_layout_update, set_input_kpool.
"""

from collections.abc import Iterator, Mapping
from typing import Final, cast

import numpy as np

from ggufphys.arch.caches import KVCache
from ggufphys.graph.ir import Tensor
from refengine.arrays import Array
from refengine.batch import Numbers
from refengine.inputs.filling import Fill, Filling

HIDDEN: Final = np.float32(-np.inf)


class _Pools:
    """All whole pools, sequence by sequence, and where a batch's tokens stand among them."""

    def __init__(self, tensor: Tensor, filling: Filling) -> None:
        params = cast("tuple[KVCache, int, int, bool, int]", tensor.params)
        _, self.size, self.n_top, self.gathers, self.n_kv = params
        self.tokens, cells = filling.tokens, filling.cells(tensor)
        self.n_stream, self.n_cells = cells.positions.shape
        self.rows: dict[int, Numbers] = {}  # of each sequence's positions, in the cache of all streams
        self.first: dict[int, int] = {}  # its first pool
        self.members: Numbers = np.empty((0, self.size), np.int64)
        for sequence in np.unique(cells.sequences[cells.sequences >= 0]).tolist():
            streams, columns = np.nonzero(cells.sequences == sequence)
            order = np.argsort(cells.positions[streams, columns])
            self.rows[sequence] = rows = (streams * self.n_cells + columns)[order]
            self.first[sequence] = len(self.members)
            whole = rows[: len(rows) // self.size * self.size]
            self.members = np.concatenate([self.members, whole.reshape(-1, self.size)])
        self.spare = int(self.rows[int(self.tokens.sequences[0])][self.tokens.positions[0]])  # for what is not there

    def named(self, rows: Numbers) -> Numbers:
        """Rows as attention asks for them: those of all streams, or of each stream's own."""
        return rows if self.gathers else rows % self.n_cells

    @property
    def none(self) -> int:
        """What stands for no cell: it is masked, or lies behind all cells."""
        return self.spare if self.gathers else self.n_kv

    @property
    def new(self) -> Numbers:
        """The numbers of the pools that the batch completes."""
        found = []
        for sequence in np.unique(self.tokens.sequences).tolist():
            positions = self.tokens.positions[self.tokens.sequences == sequence]
            numbers = np.arange(positions.min() // self.size, (positions.max() + 1) // self.size)
            found.append(self.first[sequence] + numbers)
        return np.concatenate(found)


def _pool_cells(tensor: Tensor, array: Array, filling: Filling) -> None:
    """The row of each pool's key: that of its last position."""
    pools = _Pools(tensor, filling)
    array[...] = pools.spare
    array[0, 0, 0, : len(pools.members)] = pools.members[:, -1]


def _pool_idxs(tensor: Tensor, array: Array, filling: Filling) -> None:
    """The members of each pool `(M, P)`; where streams are told apart, not those of sequences that are not here."""
    pools = _Pools(tensor, filling)
    array[...] = pools.none
    array[0, 0, : len(pools.members)] = pools.named(pools.members)
    if pools.n_stream > 1 and not pools.gathers:
        for sequence in set(pools.rows) - set(pools.tokens.sequences.tolist()):
            first = pools.first[sequence]
            array[0, 0, first : first + len(pools.rows[sequence]) // pools.size] = pools.none


def _pool_mask(tensor: Tensor, array: Array, filling: Filling) -> None:
    """A token sees the pools of its sequence that end with it or before it `(T, M)`."""
    pools = _Pools(tensor, filling)
    array[...] = HIDDEN
    for i, (sequence, position) in enumerate(_tokens(pools)):
        first = pools.first[sequence]
        array[0, 0, i, first : first + (position + 1) // pools.size] = 0


def _tail_idxs(tensor: Tensor, array: Array, filling: Filling) -> None:
    """The positions of the pool that is not whole yet, the token's own first `(T, P - 1)`."""
    pools = _Pools(tensor, filling)
    array[...] = pools.none
    for i, (sequence, position) in enumerate(_tokens(pools)):
        n = (position + 1) % pools.size
        rows = pools.rows[sequence][position + 1 - n : position + 1]
        array[0, 0, i, :n] = pools.named(rows)[::-1]


def _chosen_mask(tensor: Tensor, array: Array, filling: Filling) -> None:
    """Which of a token's chosen cells there are `(T, 1, 1, N)`: those of as many pools as it sees, and its tail."""
    pools = _Pools(tensor, filling)
    behind = pools.n_top * pools.size
    array[...] = HIDDEN
    for i, (_, position) in enumerate(_tokens(pools)):
        n_whole, n_tail = divmod(position + 1, pools.size)
        array[i, 0, 0, : min(n_whole, pools.n_top) * pools.size] = 0
        array[i, 0, 0, behind : behind + n_tail] = 0


def _new_pool_idxs(tensor: Tensor, array: Array, filling: Filling) -> None:
    """The members of the pools that the batch completes; a spare one if there are none."""
    pools = _Pools(tensor, filling)
    array[...] = pools.spare
    array[0, 0, : len(pools.new)] = pools.members[pools.new]


def _new_pool_cells(tensor: Tensor, array: Array, filling: Filling) -> None:
    """The cells that the keys of new pools go to."""
    pools = _Pools(tensor, filling)
    array[...] = pools.spare
    array[0, 0, 0, : len(pools.new)] = pools.members[pools.new, -1]


def _tokens(pools: _Pools) -> Iterator[tuple[int, int]]:
    return zip(pools.tokens.sequences.tolist(), pools.tokens.positions.tolist(), strict=True)


POOLS: Final[Mapping[str, Fill]] = {
    "pool_cells": _pool_cells,
    "pool_idxs": _pool_idxs,
    "pool_mask": _pool_mask,
    "tail_idxs": _tail_idxs,
    "chosen_mask": _chosen_mask,
    "new_pool_idxs": _new_pool_idxs,
    "new_pool_cells": _new_pool_cells,
}
