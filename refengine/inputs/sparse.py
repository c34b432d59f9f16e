"""Inputs of sparse attention: which cells belong to which block of positions, and which blocks a token may see.

Legend: S streams, T tokens, C cells, P positions, B blocks. Source: llama.cpp 0c1e570 src/llama-kv-cache-msa.cpp,
set_input_pos_slot, set_input_cell_pos, set_input_pos_mask; src/models/minimax-m3.cpp, llm_graph_input_msa::set_input;
src/llama-memory-hybrid-idx.cpp, set_input_qsa.
"""

from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from ggufphys.graph.ir import Tensor
from refengine.arrays import Array
from refengine.batch import Numbers
from refengine.inputs.filling import Fill, Filling
from refengine.memory.cells import Cells

Flags = npt.NDArray[np.bool_]

FORCED_M3: Final = 1e30  # what is added to the score of a block that is always chosen
FORCED_QWEN: Final = 1e9


def _cells(filling: Filling) -> Cells:
    """Attention's own cells; the indexer's hold the same."""
    return next(iter(filling.taken))


def _streams(filling: Filling) -> Iterator[tuple[Numbers, Numbers, slice]]:
    """Of each stream of the batch: the positions of its cells, their sequences, and which tokens are of it."""
    cells, streams = _cells(filling), _cells(filling).streams(filling.tokens)
    share = len(filling.tokens) // len(streams)
    for i, stream in enumerate(streams):
        yield cells.positions[stream], cells.sequences[stream], slice(i * share, (i + 1) * share)


# -- minimax-m3: blocks of positions, one sequence in a stream


def _pos_cell(tensor: Tensor, array: Array, filling: Filling) -> None:
    """The cell of each position, `(S, P)`."""
    array.fill(0)
    for row, (positions, _, _) in zip(array[0, 0], _streams(filling), strict=True):
        held = np.flatnonzero((positions >= 0) & (positions < len(row)))
        row[positions[held]] = held


def _cell_block(tensor: Tensor, array: Array, filling: Filling) -> None:
    """The block of each cell, `(S, C)`."""
    size = filling.keys.integer("attention.indexer.block_size")
    for row, (positions, _, _) in zip(array[0, 0], _streams(filling), strict=True):
        row[:] = np.maximum(positions[: len(row)], 0) // size


def _pos_mask(tensor: Tensor, array: Array, filling: Filling) -> None:
    """0 for positions that a token sees, else minus infinity, `(T, P)`."""
    for positions, _, mine in _streams(filling):
        held = np.isin(np.arange(array.shape[3]), positions)
        seen = held & (np.arange(array.shape[3]) <= filling.tokens.positions[mine, np.newaxis])
        array[0, 0, mine] = np.where(seen, np.float32(0), np.float32(-np.inf))


def _local_bias(tensor: Tensor, array: Array, filling: Filling) -> None:
    """Much for the blocks nearest to a token, `(T, B)`."""
    keys = filling.keys
    own = filling.tokens.positions[:, np.newaxis] // keys.integer("attention.indexer.block_size")
    distance = own - np.arange(array.shape[3])
    is_local = (distance >= 0) & (distance < keys.integer("attention.indexer.local_blocks", 0))
    array[0, 0] = np.where(is_local, np.float32(FORCED_M3), np.float32(0))


# -- qwen4exp: full blocks of cells of one sequence; what is in no full block is the tail, always chosen


class _Blocks:
    """The full blocks of one stream: their sequences and numbers, and the block of each cell, -1 for none."""

    def __init__(self, positions: Numbers, sequences: Numbers, ratio: int) -> None:
        self.of_cell = np.full(len(positions), -1)
        self.numbers: list[int] = []
        self.sequences: list[int] = []
        held = np.flatnonzero(positions >= 0)
        found: dict[tuple[int, int], list[int]] = {}  # by number and sequence
        for cell in held.tolist():
            found.setdefault((int(positions[cell]) // ratio, int(sequences[cell])), []).append(cell)
        for (number, sequence), members in sorted(found.items()):
            if len(members) == ratio:
                self.of_cell[members] = len(self.numbers)
                self.numbers.append(number)
                self.sequences.append(sequence)


def _ratio(tensor: Tensor, filling: Filling) -> int:
    ratio = tensor.params[0]
    assert isinstance(ratio, int)
    return ratio


def _blocks(n_kv: int, ratio: int, filling: Filling) -> Iterator[tuple[_Blocks, Numbers, slice]]:
    for positions, sequences, mine in _streams(filling):
        yield _Blocks(positions[:n_kv], sequences[:n_kv], ratio), positions[:n_kv], mine


def _n_kv(filling: Filling) -> int:
    return _cells(filling).n_kv(filling.tokens)


def _qsa_cell_block(tensor: Tensor, array: Array, filling: Filling) -> None:
    """The block of each cell, `(S, C)`; cells of none share a block that is not full, if there is one."""
    ratio, n_kv = _ratio(tensor, filling), array.shape[3]
    n_blocks = -(-n_kv // ratio)
    for row, (blocks, _, _) in zip(array[0, 0], _blocks(n_kv, ratio, filling), strict=True):
        row[:] = np.where(blocks.of_cell < 0, min(len(blocks.numbers), n_blocks - 1), blocks.of_cell)


def _qsa_block_cells(tensor: Tensor, array: Array, filling: Filling) -> None:
    """The cells of each block in the order of their positions, `(S, B * ratio)`."""
    ratio = _ratio(tensor, filling)
    array.fill(0)
    for row, (blocks, positions, _) in zip(array[0, 0], _blocks(_n_kv(filling), ratio, filling), strict=True):
        member = np.flatnonzero(blocks.of_cell >= 0)
        row[blocks.of_cell[member] * ratio + positions[member] % ratio] = member


def _qsa_block_pos(tensor: Tensor, array: Array, filling: Filling) -> None:
    """The first position of each block, `(lists, S, B)`: the same for all axes of text."""
    ratio = _ratio(tensor, filling)
    array.fill(0)
    n_stream = len(_cells(filling).streams(filling.tokens))
    lists = array.reshape(-1, n_stream, -(-_n_kv(filling) // ratio))
    for i, (blocks, _, _) in enumerate(_blocks(_n_kv(filling), ratio, filling)):
        lists[:, i, : len(blocks.numbers)] = np.array(blocks.numbers, np.int64) * ratio


def _qsa_bias(tensor: Tensor, array: Array, filling: Filling) -> None:
    """Minus infinity for others' blocks, much for the tail, `(S, T, B)`."""
    ratio, n_blocks = _ratio(tensor, filling), array.shape[3]
    for part, (blocks, _, mine) in zip(array[0], _blocks(_n_kv(filling), ratio, filling), strict=True):
        own = filling.tokens.positions[mine, np.newaxis]
        n = len(blocks.numbers)
        first = np.array(blocks.numbers, np.int64) * ratio
        is_mine: Flags = np.array(blocks.sequences, np.int64) == filling.tokens.sequences[mine, np.newaxis]
        in_tail = first >= (own + 1) // ratio * ratio
        part[:] = -np.inf
        part[:, :n] = np.where(is_mine, np.where(in_tail, np.float32(FORCED_QWEN), np.float32(0)), -np.inf)
        if n < n_blocks:
            part[:, n] = FORCED_QWEN


SPARSE: Final[Mapping[str, Fill]] = {
    "msa_pos_cell": _pos_cell,
    "msa_cell_block": _cell_block,
    "msa_pos_mask": _pos_mask,
    "msa_bias": _local_bias,
    "qsa_cell_block": _qsa_cell_block,
    "qsa_block_cells": _qsa_block_cells,
    "qsa_block_pos": _qsa_block_pos,
    "qsa_bias": _qsa_bias,
}
