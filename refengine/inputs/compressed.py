"""Inputs of attention to compressed positions: which rows make a block, where it goes, and who may see it.

Rows are those of the state, of all streams, and behind them the batch's own; one more is of nothing.

Source: llama.cpp 0c1e570 src/llama-kv-cache-dsv4.cpp, dsv4_build_comp_plan.
"""

from collections.abc import Mapping
from typing import Final, cast

import numpy as np

from ggufphys.arch.caches import BlockKV
from ggufphys.graph.building.compressor import OVERLAPPING
from ggufphys.graph.ir import Tensor
from refengine.arrays import Array
from refengine.inputs.filling import Fill, Filling

HIDDEN: Final = np.float32(-np.inf)


class _Plan:
    """What a batch does to the blocks of one ratio."""

    def __init__(self, tensor: Tensor, filling: Filling) -> None:
        cache, context = cast(BlockKV, tensor.params[0]), filling.memory.context
        self.ratio, self.overlaps = cache.ratio, cache.ratio == OVERLAPPING
        self.state_size = (2 if self.overlaps else 1) * cache.ratio
        self.n_stream, self.n_cells = cache.n_stream(context), cache.n_cells(context)
        self.sequences = filling.tokens.sequences.tolist()
        self.positions = filling.tokens.positions.tolist()
        self.numbers = {token: i for i, token in enumerate(zip(self.sequences, self.positions, strict=True))}

    def state_row(self, sequence: int, position: int) -> int:
        """Where a position waits in the state."""
        return (sequence * self.state_size if self.n_stream > 1 else 0) + position % self.state_size

    def source(self, sequence: int, position: int) -> int:
        """The row of a position: the batch's, the state's, or that of nothing in front of the first."""
        n_state_rows = self.state_size * self.n_stream
        if position < 0:
            return n_state_rows + len(self.positions)
        number = self.numbers.get((sequence, position))
        return self.state_row(sequence, position) if number is None else n_state_rows + number

    def blocks(self) -> list[tuple[int, int, list[int]]]:
        """Of each block the cell that it goes to, its first position, and its rows.

        Of fine blocks each sequence gets as many, and there is always one: those that are not completed are made of
        anything and go to the last cell, which nobody sees.
        """
        found, n_done = [], dict.fromkeys(self.sequences, 0)
        for sequence, position in self.numbers:
            if (position + 1) % self.ratio:
                continue
            n_done[sequence] += 1
            start = position + 1 - self.ratio
            first = start - self.ratio if self.overlaps else start
            rows = [self.source(sequence, p) for p in range(first, position + 1)]
            found.append((self._cell(sequence, position // self.ratio), start, rows))
        if self.overlaps and self.n_stream > 1:
            for sequence, n in n_done.items():
                found += [self._spare(sequence)] * (-(-self.sequences.count(sequence) // self.ratio) - n)
        return found or [self._spare(self.sequences[0])]

    def _cell(self, sequence: int, block: int) -> int:
        return (sequence * self.n_cells if self.n_stream > 1 else 0) + block

    def _spare(self, sequence: int) -> tuple[int, int, list[int]]:
        row = self.source(sequence, self.positions[self.sequences.index(sequence)])
        return self._cell(sequence, self.n_cells - 1), 0, [row] * self.state_size


def _mask(tensor: Tensor, array: Array, filling: Filling) -> None:
    """A token sees the blocks that end with it or before it: `(S, 1, T / S, C)`."""
    plan = _Plan(tensor, filling)
    n_visible = (np.array(plan.positions) + 1) // plan.ratio
    seen = np.arange(array.shape[3]) < n_visible.reshape(array.shape[0], 1, -1, 1)
    array[...] = np.where(seen, np.float32(0), HIDDEN)


def _places(tensor: Tensor, array: Array, filling: Filling) -> None:
    """Where in its block each token stands."""
    plan = _Plan(tensor, filling)
    array[0, 0, 0] = np.array(plan.positions) % plan.ratio


def _read_idxs(tensor: Tensor, array: Array, filling: Filling) -> None:
    """The rows of all blocks; where blocks overlap, the first halves of all, then the second halves."""
    plan = _Plan(tensor, filling)
    rows = np.array([rows for _, _, rows in plan.blocks()])
    array[0, 0, 0] = np.concatenate([rows[:, : plan.ratio].ravel(), rows[:, plan.ratio :].ravel()])


def _write_idxs(tensor: Tensor, array: Array, filling: Filling) -> None:
    array[0, 0, 0] = [cell for cell, _, _ in _Plan(tensor, filling).blocks()]


def _write_pos(tensor: Tensor, array: Array, filling: Filling) -> None:
    array[0, 0, 0] = [start for _, start, _ in _Plan(tensor, filling).blocks()]


def _kept(tensor: Tensor, filling: Filling) -> dict[int, int]:
    """Which of the batch's tokens stay in which row of the state: the latest of those that would."""
    plan = _Plan(tensor, filling)
    found = {plan.state_row(sequence, position): i for (sequence, position), i in plan.numbers.items()}
    return dict(sorted(found.items()))


def _kept_from(tensor: Tensor, array: Array, filling: Filling) -> None:
    array[0, 0, 0] = list(_kept(tensor, filling).values())


def _kept_to(tensor: Tensor, array: Array, filling: Filling) -> None:
    array[0, 0, 0] = list(_kept(tensor, filling))


COMPRESSED: Final[Mapping[str, Fill]] = {
    "block_mask": _mask,
    "block_places": _places,
    "block_read_idxs": _read_idxs,
    "block_write_idxs": _write_idxs,
    "block_write_pos": _write_pos,
    "block_kept_from": _kept_from,
    "block_kept_to": _kept_to,
}
