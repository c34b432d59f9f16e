"""Products of quantised weights with quantised activations, to the bit.

Within a block the products are whole numbers, exact in any order; each block's sum, or the sums of its eight lanes, is
multiplied with the scales of both sides and added up in F32.
Source: llama.cpp 0c1e570 ggml/src/ggml-cpu/arch/x86/quants.c, ggml_vec_dot_*; ggml/src/ggml-cpu/llamafile/sgemm.cpp,
tinyBLAS_Q0_AVX; ggml/src/ggml-cpu/tiled/tiled-kernel.cpp, tiled_run_microtile.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from ggufphys.gguf.ggml_types import SIZES, GGMLType
from ggufphys.graph.allocating.work import vec_dot_type
from refengine.arrays import Array
from refengine.blocks import BLOCKS, F32, Blocks
from refengine.dequant.k import scale_min_k4
from refengine.dequant.lookup import UE4M3
from refengine.dequant.table import dequantize
from refengine.faithful.arithmetic import F64, as_f64, fma, halved
from refengine.ops.step import Run, Step
from refengine.quant.activations import quantize_activations

LANES: Final = 8  # of vectors of 256 bits, whatever the processor has
PIECE_WEIGHTS: Final = 1 << 16  # of a matrix that are multiplied at a time
TILED_ROWS: Final = 8  # rows of activations from which on K-types are multiplied in tiles

SIMPLE: Final = (GGMLType.Q4_0, GGMLType.Q5_0, GGMLType.Q8_0)
WITH_MINIMA: Final = (GGMLType.Q4_K, GGMLType.Q5_K)
K_TYPES: Final = (*WITH_MINIMA, GGMLType.Q6_K)


@dataclass(frozen=True, slots=True, kw_only=True)
class Levels:
    """A matrix of `m` rows of `b` blocks of `n` weights: whole numbers `(b, m, n)`, sub-blocks' scales in them.

    `d` is the scale of each block, `(b, m)`. Of some types `dmin * minima` is what each sub-block's weights lie lower,
    `(b, m)` and `(b, m, n / 32)`. Of Q6_K `scales` are those of the sub-blocks, `(b, m, n / 16)`. NVFP4 counts as
    blocks of 32, as its activations are, and `d` has the scales of their halves, `(b, m, 2)`.
    """

    q: F32
    d: F64
    dmin: F64 | None = None
    minima: F64 | None = None
    scales: F64 | None = None


def levels(ggml_type: GGMLType, rows: Array) -> Levels:
    """What a matrix of blocks holds: `rows` is `(m, b)` blocks."""
    if ggml_type is GGMLType.NVFP4:
        return _levels_of_halves(rows)
    m, b = rows.shape
    blocks: Blocks = np.ascontiguousarray(rows).reshape(-1).view(np.uint8).view(BLOCKS[ggml_type])
    unscaled = blocks.copy()  # with a scale of 1 and a minimum of 0 the weights are the whole numbers themselves
    if ggml_type in WITH_MINIMA:
        unscaled["dm"] = (1, 0)
    else:
        unscaled["d"] = 1
    q = dequantize(ggml_type, unscaled.view(np.uint8)).reshape(m, b, -1).swapaxes(0, 1)

    def by_block(values: Array) -> F64:
        shaped = values.astype(np.float64).reshape(m, b, *values.shape[1:])
        return np.ascontiguousarray(shaped.swapaxes(0, 1))

    if ggml_type in WITH_MINIMA:
        minima = scale_min_k4(blocks["scales"])[1]
        return Levels(q=q, d=by_block(blocks["dm"][:, 0]), dmin=by_block(blocks["dm"][:, 1]), minima=by_block(minima))
    scales = by_block(blocks["scales"]) if ggml_type is GGMLType.Q6_K else None
    return Levels(q=q, d=by_block(blocks["d"]), scales=scales)


def _levels_of_halves(rows: Array) -> Levels:
    """NVFP4's: 64 weights with four scales are two blocks with two."""
    blocks: Blocks = np.ascontiguousarray(rows).reshape(-1).view(np.uint8).view(BLOCKS[GGMLType.NVFP4])
    unscaled = blocks.copy()
    unscaled["d"] = np.flatnonzero(UE4M3 == 1)[0]
    q = dequantize(GGMLType.NVFP4, unscaled.view(np.uint8)).reshape(len(rows), -1, 32).swapaxes(0, 1)
    d = UE4M3[blocks["d"]].astype(np.float64).reshape(len(rows), -1, 2).swapaxes(0, 1)
    return Levels(q=q, d=np.ascontiguousarray(d))


@dataclass(frozen=True, slots=True, kw_only=True)
class Activations:
    """`t` rows of activations as blocks: whole numbers `(b, t, n)`, scales `(b, t)`."""

    q: F32
    d: F64


def activations(ggml_type: GGMLType, rows: F32) -> Activations:
    """`(t, n_in)` converted as ggml does."""
    blocks = quantize_activations(ggml_type, np.ascontiguousarray(rows)).view(BLOCKS[ggml_type])
    q = blocks["qs"].astype(np.float32).reshape(len(rows), -1, SIZES[ggml_type].block_size).swapaxes(0, 1)
    d = blocks["d"].astype(np.float64).reshape(len(rows), -1).T
    return Activations(q=np.ascontiguousarray(q), d=np.ascontiguousarray(d))


def block_product(step: Step) -> Run | None:
    """A product with matrices of a type that is followed here, of the file or of a cache; None for others."""
    w, x = step.node.src[:2]
    multiply = kernel(w.type, x.ne[1])
    if multiply is None:
        return None
    read, out, matrices, to_type = step.reader(1), step.out, step.src[0], vec_dot_type(w.type)
    keep = step.is_weight(0) and step.weights.hold == "f32"
    pieces = {ij: Pieces(w.type, matrices[ij], keep=keep) for ij in np.ndindex(*matrices.shape[:2])}
    s, k = out.shape[0] // matrices.shape[0], out.shape[1] // matrices.shape[1]

    def run() -> None:
        vectors = read()
        for i, j in np.ndindex(*out.shape[:2]):
            x = activations(to_type, vectors[i, j])
            for rows, piece in pieces[i // s, j // k]:
                out[i, j][:, rows] = multiply(piece, x)

    return run


class Pieces:
    """A matrix of blocks a few rows at a time, as slices and their levels; `keep` them once they are made."""

    def __init__(self, ggml_type: GGMLType, matrix: Array, *, keep: bool = False) -> None:
        self._type = ggml_type
        self._matrix = matrix
        self._kept: list[tuple[slice, Levels]] | None = None
        self._keep = keep

    def __iter__(self) -> Iterator[tuple[slice, Levels]]:
        if not self._keep:
            return self._made()
        if self._kept is None:
            self._kept = list(self._made())
        return iter(self._kept)

    def _made(self) -> Iterator[tuple[slice, Levels]]:
        step = max(1, PIECE_WEIGHTS // (self._matrix.shape[1] * SIZES[self._type].block_size))
        for first in range(0, len(self._matrix), step):
            rows = slice(first, first + step)
            yield rows, levels(self._type, self._matrix[rows])


Kernel = Callable[[Levels, Activations], F32]


def kernel(ggml_type: GGMLType, n_rows: int) -> Kernel | None:
    """How `n_rows` rows of activations at once are multiplied with weights of a type; None: not followed here."""
    if ggml_type in SIMPLE:
        return simple
    if ggml_type is GGMLType.NVFP4:
        return with_halves
    if ggml_type in K_TYPES:
        if n_rows >= TILED_ROWS:
            return tiled
        return with_lane_minima if ggml_type is GGMLType.Q4_K else with_minima if ggml_type is GGMLType.Q5_K else q6_k
    return None


def simple(w: Levels, x: Activations) -> F32:
    """Blocks of 32: lane i sums up the products of weights 4i to 4i+3 of every block."""
    return halved(_lanes(w, x).astype(np.float32))


def with_halves(w: Levels, x: Activations) -> F32:
    """NVFP4: blocks of 32 whose first four lanes have the scale of the first 16 weights, the others the second's."""
    acc = np.zeros((x.q.shape[1], w.q.shape[1], LANES))
    for b in range(len(w.q)):
        d = as_f64(x.d[b][:, np.newaxis, np.newaxis] * w.d[b])
        acc = fma(np.repeat(d, LANES // 2, axis=-1), as_f64(_lane_sums(w.q[b], x.q[b])), acc)
    return halved(acc.astype(np.float32))


def tiled(w: Levels, x: Activations) -> F32:
    """Super-blocks: the whole block's sum as one number, for all rows at once."""
    total = np.zeros((x.q.shape[1], w.q.shape[1]))
    sums_of_32 = _sums(x.q, 32)
    for b in range(len(w.q)):
        part = as_f64(as_f64(_exact(x.q[b], w.q[b])) * w.d[b])
        if w.minima is not None:
            assert w.dmin is not None
            part = fma(-w.dmin[b], as_f64(_exact(sums_of_32[b], w.minima[b])), part)
        total = fma(part, x.d[b][:, np.newaxis], total)
    return total.astype(np.float32)


def with_lane_minima(w: Levels, x: Activations) -> F32:
    """Q4_K, few rows: the minima of two neighbouring sub-blocks in each of four lanes."""
    assert w.dmin is not None
    assert w.minima is not None
    sums_of_32 = _sums(x.q, 32)
    lower = np.zeros((x.q.shape[1], w.q.shape[1], 4))
    for b in range(len(w.q)):
        d = as_f64(-x.d[b][:, np.newaxis] * w.dmin[b])[..., np.newaxis]
        pairs = [_exact(sums_of_32[b][:, 2 * i : 2 * i + 2], w.minima[b][:, 2 * i : 2 * i + 2]) for i in range(4)]
        lower = fma(d, as_f64(np.stack(pairs, axis=-1)), lower)
    return halved(_lanes(w, x).astype(np.float32)) + halved(lower.astype(np.float32))


def with_minima(w: Levels, x: Activations) -> F32:
    """Q5_K, few rows: the minima in one sum."""
    assert w.dmin is not None
    assert w.minima is not None
    sums_of_32 = _sums(x.q, 32)
    lower = np.zeros((x.q.shape[1], w.q.shape[1]))
    for b in range(len(w.q)):
        d = as_f64(-x.d[b][:, np.newaxis] * w.dmin[b])
        lower = fma(d, as_f64(_exact(sums_of_32[b], w.minima[b])), lower)
    return halved(_lanes(w, x).astype(np.float32)) + lower.astype(np.float32)


def q6_k(w: Levels, x: Activations) -> F32:
    """Q6_K, few rows: weights count from 0, and what that is too much is taken off lanes by sums of 16.

    Lanes 0 to 3 have the first 16 weights of each 32, but lane i is corrected by the sums 2i and 2i+1.
    """
    assert w.scales is not None
    n_t, n_m = x.q.shape[1], w.q.shape[1]
    sums_of_16 = _sums(x.q, 16)
    acc = np.zeros((n_t, n_m, LANES))
    for b in range(len(w.q)):
        found = _lane_sums(w.q[b], x.q[b])
        fours = _sums(x.q[b], 4).reshape(n_t, -1, LANES)
        for i in range(LANES):
            found[..., i] += 32 * _exact(fours[..., i], w.scales[b][:, i // 4 :: 2])
            pair = slice(2 * i, 2 * i + 2)
            found[..., i] -= 32 * _exact(sums_of_16[b][:, pair], w.scales[b][:, pair])
        acc = fma(as_f64(x.d[b][:, np.newaxis] * w.d[b])[..., np.newaxis], as_f64(found), acc)
    return halved(acc.astype(np.float32))


def _lanes(w: Levels, x: Activations) -> F64:
    """Sums of all blocks in lanes: `(t, m, 8)`."""
    acc = np.zeros((x.q.shape[1], w.q.shape[1], LANES))
    for b in range(len(w.q)):
        d = as_f64(x.d[b][:, np.newaxis] * w.d[b])
        acc = fma(d[..., np.newaxis], as_f64(_lane_sums(w.q[b], x.q[b])), acc)
    return acc


def _lane_sums(w: F32, x: F32) -> F64:
    """`(m, n)` with `(t, n)`: `(t, m, 8)`; of each 32 weights, four to a lane."""
    a, b = (
        each.reshape(len(each), -1, LANES, 4).transpose(2, 0, 1, 3).reshape(LANES, len(each), -1) for each in (w, x)
    )
    return np.ascontiguousarray(_exact(b, a).transpose(1, 2, 0))


def _exact(x: Array, w: Array) -> F64:
    """Products of whole numbers, `(..., t, n)` with `(..., m, n)`: `(..., t, m)`, exact in F64."""
    found: F64 = np.matmul(x.astype(np.float64), w.astype(np.float64).swapaxes(-1, -2))
    return found


def _sums(x: F32, n: int) -> F64:
    """Of each `n` numbers in the last axis the sum."""
    found: F64 = x.reshape(*x.shape[:-1], -1, n).sum(axis=-1, dtype=np.float64)
    return found
