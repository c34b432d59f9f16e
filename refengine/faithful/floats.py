"""Dot products of rows of F32, F16 and BF16, to the bit.

A dot product is added up in lanes: number i goes to lane i modulo their number, by a fused multiply-add. Of one row of
activations there are several vectors of lanes, and of several rows, which llamafile's kernels multiply in tiles, one.
Source: llama.cpp 0c1e570 ggml/src/ggml-cpu/vec.cpp, ggml_vec_dot_f32, ggml_vec_dot_f16, ggml_vec_dot_bf16;
ggml/src/ggml-cpu/llamafile/sgemm.cpp, llamafile_sgemm, tinyBLAS.
"""

from collections.abc import Callable
from typing import Final

import numpy as np

from ggufphys.gguf.ggml_types import GGMLType
from refengine.blocks import F32
from refengine.faithful.arithmetic import F64, WORK, halved
from refengine.faithful.lanes import floats_behind, halves_behind, in_lanes, lane_dot
from refengine.peers.simd import REGISTERS, Simd

FLOATS: Final = (GGMLType.F32, GGMLType.F16, GGMLType.BF16)

Dot = Callable[[F64, F64], F32]
"""Along the last axis, `(..., n)` with `(..., n)`: `(...)`."""


def dots(ggml_type: GGMLType, matrix: F32, vectors: F32, simd: Simd, *, n_rows: int = 1) -> F32:
    """`(n_out, n)` with `(T, n)`, both rounded to the type: `(T, n_out)`, when `n_rows` are multiplied at once."""
    n_out, n_in = matrix.shape
    dot = dot_of(ggml_type, simd, tiled=is_tiled(ggml_type, simd, n_in=n_in, n_out=n_out, n_rows=n_rows))
    out = np.empty((len(vectors), n_out), np.float32)
    step = max(1, WORK // (len(vectors) * REGISTERS * simd.lanes))
    wide = vectors[:, np.newaxis].astype(np.float64)
    for first in range(0, n_out, step):
        rows = slice(first, first + step)
        out[:, rows] = dot(matrix[rows].astype(np.float64), wide)
    return out


def is_tiled(ggml_type: GGMLType, simd: Simd, *, n_in: int, n_out: int, n_rows: int) -> bool:
    """Whether llamafile's kernels multiply: several rows of whole vectors with a multiple of four rows of weights."""
    in_pairs = ggml_type is GGMLType.BF16 and simd.bf16_pairs
    n_at_once = 2 * simd.lanes if in_pairs else simd.lanes
    return simd.tiles and n_rows > 1 and n_in % n_at_once == 0 and n_out % 4 == 0


def dot_of(ggml_type: GGMLType, simd: Simd, *, tiled: bool) -> Dot:
    """The dot product of a type."""
    if ggml_type is GGMLType.BF16:
        return lambda a, b: _bf16_dot(a, b, simd, 1 if tiled else 32 // simd.lanes)
    n_lanes = simd.lanes if tiled else REGISTERS * simd.lanes
    behind = halves_behind if ggml_type is GGMLType.F16 else floats_behind
    return lambda a, b: lane_dot(a, b, n_lanes, simd, behind)


def _bf16_dot(a: F64, b: F64, simd: Simd, n_vectors: int) -> F32:
    """AVX512-BF16 code adds pairs to a lane, the second of each first. Vectors of 16 are reduced each for itself."""
    n_lanes = n_vectors * simd.lanes
    step = 2 * n_lanes if simd.bf16_pairs else n_lanes
    n_whole = a.shape[-1] // step * step
    x, y = a[..., :n_whole], b[..., :n_whole]
    if simd.bf16_pairs:
        x, y = _in_pairs(x, n_lanes), _in_pairs(y, n_lanes)
    sums = in_lanes(x, y, n_lanes).astype(np.float32)
    if simd.lanes == 16:
        total = halved(sums.reshape(*sums.shape[:-1], n_vectors, 16)).sum(axis=-1, dtype=np.float64)
    else:
        total = halved(sums).astype(np.float64)
    return halves_behind(total, a[..., n_whole:], b[..., n_whole:]).astype(np.float32)


def _in_pairs(x: F64, n_lanes: int) -> F64:
    """The second numbers of a step's pairs, then the first ones."""
    pairs = x.reshape(*x.shape[:-1], -1, n_lanes, 2)[..., ::-1]
    return pairs.swapaxes(-1, -2).reshape(x.shape)
