"""What is written into a graph's inputs before it runs? A function for each name that inputs have.

Source: llama.cpp 0c1e570 src/llama-graph.cpp, llm_graph_input_*::set_input; src/llama-kv-cache.cpp, set_input_*.
"""

from collections.abc import Mapping
from typing import Any, Final, cast

import numpy as np

from ggufphys.graph.ir import Graph, Tensor
from refengine.arrays import Array
from refengine.batch import Numbers
from refengine.inputs.alone import ALONE
from refengine.inputs.compressed import COMPRESSED
from refengine.inputs.filling import Fill, Filling
from refengine.inputs.other import OTHER
from refengine.inputs.pools import POOLS
from refengine.inputs.sparse import SPARSE


def _tokens(tensor: Tensor, array: Array, filling: Filling) -> None:
    array[0, 0, 0] = filling.tokens.ids


def _nothing(tensor: Tensor, array: Array, filling: Filling) -> None:
    """Ready-made embeddings: no node reads them."""


def _positions(tensor: Tensor, array: Array, filling: Filling) -> None:
    """One list, or four of which the last is 0: text has no other axes."""
    lists = array.reshape(-1, len(filling.tokens))
    lists[:3] = filling.tokens.positions
    lists[3:] = 0


def _out_ids(tensor: Tensor, array: Array, filling: Filling) -> None:
    array[0, 0, 0] = filling.tokens.outputs


def _k_idxs(tensor: Tensor, array: Array, filling: Filling) -> None:
    array[0, 0, 0] = _rows(tensor, filling)[0]


def _v_idxs(tensor: Tensor, array: Array, filling: Filling) -> None:
    """Rows; where V is transposed, all elements of a token: each is `n_cells` behind the one before."""
    rows, n_cells = _rows(tensor, filling)
    width = array.size // len(rows)
    if width == 1:
        array[0, 0, 0] = rows
        return
    stream, cell = np.divmod(rows, n_cells)
    first = stream * n_cells * width + cell
    array.reshape(-1, width)[...] = first[:, np.newaxis] + np.arange(width) * n_cells


def _rows(tensor: Tensor, filling: Filling) -> tuple[Numbers, int]:
    cells = filling.cells(tensor)
    n_cells = cells.positions.shape[1]
    streams = cells.streams(filling.tokens)
    return np.repeat(streams, len(filling.tokens) // len(streams)) * n_cells + filling.taken[cells], n_cells


def _kq_mask(tensor: Tensor, array: Array, filling: Filling) -> None:
    cells = filling.cells(tensor)
    array[...] = cells.mask(filling.tokens, tensor.ne[0], causal=filling.causal, alibi=filling.alibi)


def _rotation(tensor: Tensor, array: Array, filling: Filling) -> None:
    """The normalised Hadamard matrix."""
    matrix = np.ones((1, 1), np.float32)
    while len(matrix) < tensor.ne[0]:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    array[0, 0] = matrix / np.sqrt(np.float32(tensor.ne[0]))


def _s_copy(tensor: Tensor, array: Array, filling: Filling) -> None:
    """The rows whose states those get that the batch works on."""
    assert filling.states is not None
    array[0, 0, 0] = filling.states.sources


def _attn_scale(tensor: Tensor, array: Array, filling: Filling) -> None:
    """Queries far back in long contexts count more: `log(floor((position + offset) / length) + 1) * scale + 1`."""
    scale, length, offset = cast("tuple[float, int, float]", tensor.params)
    n_lengths = np.floor((filling.tokens.positions.astype(np.float32) + np.float32(offset)) / np.float32(length))
    array.reshape(-1)[:] = np.log(n_lengths + 1) * np.float32(scale) + 1


FILL: Final[Mapping[str, Fill]] = {
    "tokens": _tokens,
    "embd": _nothing,
    "pos": _positions,
    "out_ids": _out_ids,
    "k_idxs": _k_idxs,
    "v_idxs": _v_idxs,
    "kq_mask": _kq_mask,
    "rotation": _rotation,
    "s_copy": _s_copy,
    "attn_scale": _attn_scale,
    **ALONE,
    **OTHER,
    **SPARSE,
    **POOLS,
    **COMPRESSED,
}


def has_alibi(graph: Graph) -> bool:
    """Whether the graph's attention has a bias that grows with the distance."""
    biases: list[Any] = [node.params[1] for node in graph.nodes if node.op in ("SOFT_MAX", "FLASH_ATTN_EXT")]
    return any(bias > 0 for bias in biases)
