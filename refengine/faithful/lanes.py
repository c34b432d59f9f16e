"""Dot products of vectors, to the bit: in which lanes they are added up, and how these are reduced.

Source: llama.cpp 0c1e570 ggml/src/ggml-cpu/vec.cpp, ggml_vec_dot_f32, ggml_vec_dot_f16;
ggml/src/ggml-cpu/simd-mappings.h, GGML_F32x16_REDUCE, GGML_F32x8_REDUCE.
"""

from collections.abc import Callable
from typing import Final

import numpy as np

from refengine.blocks import F32
from refengine.faithful.arithmetic import F64, as_f64, fma, halved
from refengine.peers.simd import Simd

VECTOR_IN_ORDER: Final = 4  # the shortest vector that GCC computes products in where it must add them up in order


Behind = Callable[[F64, F64, F64], F64]
"""Adds to a sum, `(...)`, the products along the last axis of two `(..., n)`, which are behind whole lanes."""


def lane_dot(a: F64, b: F64, n_lanes: int, simd: Simd, behind: Behind) -> F32:
    """Along the last axis, `(..., n)` with `(..., n)`: `(...)`."""
    n_whole = a.shape[-1] // n_lanes * n_lanes
    acc = in_lanes(a[..., :n_whole], b[..., :n_whole], n_lanes)
    by_neighbours = simd.lanes < 16 and n_lanes > simd.lanes
    total = _reduced(acc.astype(np.float32), by_neighbours=by_neighbours).astype(np.float64)
    return behind(total, a[..., n_whole:], b[..., n_whole:]).astype(np.float32)


def in_lanes(a: F64, b: F64, n_lanes: int) -> F64:
    """The sum of each lane: `(..., n_lanes)`."""
    shape = np.broadcast_shapes(a.shape, b.shape)
    acc = np.zeros((*shape[:-1], n_lanes))
    for first in range(0, shape[-1], n_lanes):
        lanes = slice(first, first + n_lanes)
        acc = fma(a[..., lanes], b[..., lanes], acc)
    return acc


def _reduced(lanes: F32, *, by_neighbours: bool) -> F32:
    """Four vectors of eight end with the sums of neighbours (hadd), all else goes on halving."""
    if not by_neighbours:
        return halved(lanes)
    while lanes.shape[-1] > 4:
        half = lanes.shape[-1] // 2
        lanes = lanes[..., :half] + lanes[..., half:]
    pairs = lanes[..., 0::2] + lanes[..., 1::2]
    total: F32 = pairs[..., 0] + pairs[..., 1]
    return total


def halves_behind(total: F64, a: F64, b: F64) -> F64:
    """Rounded products, added in F64."""
    for i in range(a.shape[-1]):
        total = total + as_f64(a[..., i] * b[..., i])
    return total


def fused_behind(total: F64, a: F64, b: F64) -> F64:
    """In F32, each product fused with its addition."""
    for i in range(a.shape[-1]):
        total = fma(a[..., i], b[..., i], total)
    return total


def floats_behind(total: F64, a: F64, b: F64) -> F64:
    """In F32 and in order, as GCC compiles a loop that does nothing else.

    It rounds the products of whole vectors of four before it adds them, and fuses the others with their addition.
    """
    n_whole = a.shape[-1] // VECTOR_IN_ORDER * VECTOR_IN_ORDER
    for i in range(n_whole):
        total = as_f64(total + as_f64(a[..., i] * b[..., i]))
    return fused_behind(total, a[..., n_whole:], b[..., n_whole:])
