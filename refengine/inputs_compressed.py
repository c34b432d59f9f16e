"""Inputs of attention to compressed positions: which rows make a block, where it goes, and who may see it.

Rows are those of the state, of all streams, and behind them the batch's own; one more is of nothing.

Source: llama.cpp 0c1e570 src/llama-kv-cache-dsv4.cpp, dsv4_build_comp_plan.
"""

from collections.abc import Iterator, Mapping
from typing import Final, cast

import numpy as np

from ggufphys.arch.caches import BlockKV
from ggufphys.graph.compressor import OVERLAPPING
from ggufphys.graph.ir import Tensor
from refengine.arrays import Array
from refengine.filling import Fill, Filling

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

    def blocks(self, n: int) -> Iterator[tuple[int, int, list[int]]]:
        """Of `n` blocks the cell that each goes to, its first position, and its rows.

        Where fewer are completed, the others are made of anything and go to the last cell, which nobody sees. Of fine
        blocks each sequence gets as many.
        """
        done = dict.fromkeys(self.sequences, 0)
        for sequence, position in zip(self.sequences, self.positions, strict=True):
            if (position + 1) % self.ratio == 0:
                done[sequence] += 1
                start = position + 1 - self.ratio
                first = start - self.ratio if self.overlaps else start
                rows = [self.source(sequence, p) for p in range(first, position + 1)]
                yield self._cell(sequence, position // self.ratio), start, rows
        n -= sum(done.values())
        for sequence, n_done in done.items():
            wanted = max(done.values()) if self.overlaps and self.n_stream > 1 and n else n_done
            wanted = -(-self.sequences.count(sequence) // self.ratio) if wanted != n_done or self._even else n_done
            yield from [self._spare(sequence)] * min(wanted - n_done, n)
            n -= min(wanted - n_done, n)
        yield from [self._spare(self.sequences[0])] * n
