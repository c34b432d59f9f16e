"""Where are a model's weights, and in which form does a product get them? In the mapped file, or held as F32.

`hold="quantised"` leaves them in the file: a product dequantises a piece of rows at a time, small enough for a core's
cache. `hold="f32"` dequantises each matrix when it is first used and keeps it.
"""

from collections.abc import Callable, Iterator
from typing import Final, Literal

import numpy as np

from ggufphys.gguf import GGMLType, GGUFFile
from ggufphys.gguf.ggml_types import SIZES
from ggufphys.graph.ir import Tensor
from refengine.arrays import Array, show
from refengine.blocks import F32, U8
from refengine.quant.convert import to_f32

Hold = Literal["f32", "quantised"]

PIECE_WEIGHTS: Final = 1 << 18  # 1 MiB of F32: half a core's L2 cache
TURNED_ROWS: Final = 16  # of a matrix that are turned at a time: as much of each column as a cache line holds


class Weights:
    """The weights of one file, by the graph's tensors.

    Raises:
        GGUFError: a tensor's data is missing (on first use).
    """

    def __init__(self, gguf: GGUFFile, hold: Hold) -> None:
        self.gguf = gguf
        self.hold = hold
        self._raw: dict[str, U8] = {}
        self._f32: dict[object, F32] = {}
        self.held_bytes = 0  # of weights that are kept as F32 beside the file
        self.watch: Callable[[], object] = _nothing  # called before a matrix is dequantised as a whole; may raise

    @property
    def mapped_bytes(self) -> int:
        """Bytes of the tensors that were asked for, in the mapped file."""
        return sum(len(raw) for raw in self._raw.values())

    def raw(self, name: str) -> U8:
        """The bytes of a tensor, in the mapped file."""
        raw = self._raw.get(name)
        if raw is None:
            data = self.gguf.tensor_data(self.gguf.tensors_by_name[name])
            raw = self._raw[name] = np.frombuffer(data, np.uint8)
        return raw

    def array(self, tensor: Tensor) -> Array:
        """A weight, or a view of one, as it is in the file."""
        return show(self.raw((tensor.view_src or tensor).name), tensor, tensor.offset)

    def f32(self, tensor: Tensor) -> F32:
        """A weight, or a view of one, as F32: four axes.

        Those that are kept are turned: what one input is multiplied with lies one behind the other, as BLAS reads it
        fastest.
        """
        key = ((tensor.view_src or tensor).name, tensor.offset, tensor.ne, tensor.nb)
        made = self._f32.get(key)
        if made is None:
            self.watch()
            array = self.array(tensor)
            if self.hold != "f32" or tensor.type is GGMLType.F32:
                return to_f32(array, tensor.type)
            made = self._f32[key] = _turned(array, tensor.type)
            self.held_bytes += made.nbytes
        return made

    def pieces(self, tensor: Tensor) -> Iterator[tuple[int, F32]]:
        """A matrix `(n_out, n_in)` a few rows at a time, and the number of the first."""
        if self.hold == "f32" or tensor.type is GGMLType.F32:
            yield 0, self.f32(tensor)[0, 0]
            return
        matrix = self.array(tensor)[0, 0]
        step = max(1, PIECE_WEIGHTS // (matrix.shape[1] * SIZES[tensor.type].block_size))
        for start in range(0, len(matrix), step):
            yield start, to_f32(matrix[start : start + step], tensor.type)


def _turned(array: Array, ggml_type: GGMLType) -> F32:
    """Matrices `(.., n_out, n_blocks)` as F32 `(.., n_out, n_in)`, each column in one piece."""
    *others, n_out, n_blocks = array.shape
    made = np.empty((*others, n_blocks * SIZES[ggml_type].block_size, n_out), np.float32).swapaxes(-1, -2)
    for first in range(0, n_out, TURNED_ROWS):
        rows = slice(first, first + TURNED_ROWS)
        made[..., rows, :] = to_f32(array[..., rows, :], ggml_type)
    return made


def _nothing() -> None:
    """Watches nothing."""
