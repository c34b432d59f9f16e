"""How do the IQ types, whose weights are points of a grid, become F32?

Kernels as in `simple.py`. An index names 4 or 8 neighbouring weights at once: a point of a grid (iq_grids.py),
taken from a table as one item of 4 or 8 bytes. Signs stand apart, a bit a weight; IQ2_XXS, IQ2_XS and IQ3_XXS store 7
of 8 and make the number of minus signs even. IQ1_S and IQ1_M have no signs but a shift of all eight weights by +-1/8.

Products are exact in F32 as in the other types (half, 5-bit scale, 6-bit weight: 22 bits), in any order.
Source: llama.cpp 0c1e570 ggml/src/ggml-quants.c, dequantize_row_iq*; ggml/src/ggml-common.h, ksigns_iq2xs.
"""

import base64
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from ggufphys.gguf import GGMLType
from refengine.blocks import F32, I8, U8, Blocks
from refengine.dequant.iq_grids import GRIDS
from refengine.dequant.k import scale
from refengine.dequant.unpack import fields

Items = npt.NDArray[np.signedinteger[Any]]  # a point each, of as many bytes as it has coordinates


def iq2_xxs(blocks: Blocks, w: F32) -> None:
    """`w = d*(2*sc + 1)/8 * +-grid`, for 32 weights 4 indices of 8 bits, 4 * 7 signs and sc of 4 bits."""
    indices, signs = np.moveaxis(blocks["qs"].reshape(-1, 8, 2), 2, 0)  # (n, 8), each as bits of a word
    q = np.empty((*signs.shape, 4), np.uint16)  # (n, 8, 4): sign bits above, index below
    for i in range(4):
        q[:, :, i] = (signs >> 7 * i & 0x7F) << 8 | indices >> 8 * i & 0xFF
    w.reshape(-1)[:] = look_up(signed_points(GGMLType.IQ2_XXS), q)
    scale(w, odd(signs >> 28), eighth(blocks["d"]))


def iq2_xs(blocks: Blocks, w: F32) -> None:
    """`w = d*(2*sc + 1)/8 * +-grid`, for 8 weights an index of 9 bits below 7 signs; sc of 4 bits for 16 weights."""
    w.reshape(-1)[:] = look_up(signed_points(GGMLType.IQ2_XS), blocks["qs"])
    scale(w, odd(fields(blocks["scales"], 4)), eighth(blocks["d"]))


def iq2_s(blocks: Blocks, w: F32) -> None:
    """`w = d*(2*sc + 1)/8 * +-grid`, for 8 weights an index of 8 + 2 bits and 8 signs; sc of 4 bits for 16 weights."""
    indices = fields(blocks["qh"], 2).astype(np.uint16)  # (n, 32)
    indices <<= 8
    indices |= blocks["qs"]
    q = look_up(points(GGMLType.IQ2_S), indices)
    q *= look_up(all_signs(), blocks["signs"])
    w.reshape(-1)[:] = q
    scale(w, odd(fields(blocks["scales"], 4)), eighth(blocks["d"]))


def iq3_xxs(blocks: Blocks, w: F32) -> None:
    """`w = d*(2*sc + 1)/4 * +-grid`, an index of 8 bits for 4 weights; 4 * 7 signs and sc of 4 bits for 32 weights."""
    words = blocks["signs"]  # (n, 8)
    signs = np.empty((*words.shape, 4), np.uint8)
    for i in range(4):
        signs[:, :, i] = words >> 7 * i & 0x7F
    q = look_up(pairs_of_points(GGMLType.IQ3_XXS), blocks["qs"].view("<u2"))
    q *= look_up(even_signs(), signs)
    w.reshape(-1)[:] = q
    scale(w, odd(words >> 28), eighth(blocks["d"]) * np.float32(2))


def iq3_s(blocks: Blocks, w: F32) -> None:
    """`w = d*(2*sc + 1) * +-grid`, for 4 weights an index of 8 + 1 bits; 8 signs for 8, sc of 4 bits for 32 weights."""
    indices = fields(blocks["qh"], 1).astype(np.uint16)  # (n, 64)
    indices <<= 8
    indices |= blocks["qs"]
    q = look_up(points(GGMLType.IQ3_S), indices)
    q *= look_up(all_signs(), blocks["signs"])
    w.reshape(-1)[:] = q
    scale(w, odd(fields(blocks["scales"], 4)), blocks["d"].astype(np.float32))


def iq1_s(blocks: Blocks, w: F32) -> None:
    """`w = d*(2*sc + 1)/8 * (8*grid +- 1)`, an index of 8 + 3 bits for 8 weights; sc of 3 bits and +- for 32.

    qh has the upper bits of 4 indices, then sc, and the shift's sign on top.
    """
    qh = blocks["qh"]
    upper = np.empty((*qh.shape, 4), np.uint16)  # (n, 8, 4): 3 bits of index below the shift's sign
    for i in range(4):
        upper[:, :, i] = qh >> 3 * i & 7 | qh >> 12 & 8
    shifted_grid(w, blocks["qs"], upper)
    scale(w, odd(qh >> 12 & 7), eighth(blocks["d"]))


def iq1_m(blocks: Blocks, w: F32) -> None:
    """`w = d*(2*sc + 1)/8 * (8*grid +- 1)`, an index of 8 + 3 bits and +- for 8 weights; sc of 3 bits for 16.

    A word of `scales` has 4 sc, 3 bits each, and above them 4 bits of the half d, the lowest in the first word.
    """
    words = blocks["scales"]  # (n, 4)
    sc = np.empty((*words.shape, 4), np.uint16)
    d = np.zeros(len(words), np.uint16)
    for i in range(4):
        sc[:, :, i] = words >> 3 * i & 7
        d |= words[:, i] >> 12 << 4 * i
    shifted_grid(w, blocks["qs"], fields(blocks["qh"], 4).astype(np.uint16))
    scale(w, odd(sc.reshape(-1, 16)), eighth(d.view(np.float16)))


def shifted_grid(w: F32, lower: U8, upper: npt.NDArray[np.uint16]) -> None:
    """Write `8*grid + 1`, or - 1 where bit 3 of `upper` is set, into `w`: `(n, 256)` from `(n, 32)` bytes each."""
    indices = upper.reshape(lower.shape)
    indices <<= 8
    indices |= lower
    w.reshape(-1)[:] = look_up(shifted_points(), indices)


def odd(sc: npt.NDArray[Any]) -> F32:
    """`2*sc + 1` of small integers."""
    odds = sc.astype(np.float32)
    odds *= 2
    odds += 1
    return odds


def eighth(d: F32) -> F32:
    """`d / 8` of halves: exact, F32 reaches far below a half."""
    return d.astype(np.float32) * np.float32(0.125)


def look_up(table: Items, indices: npt.NDArray[Any]) -> I8:
    """The weights of the points at `indices`, in a row."""
    return np.take(table, indices).reshape(-1).view(np.int8)


@cache
def points(ggml_type: GGMLType) -> Items:
    """The points of a grid, in order: `(n_points,)` items."""
    grid = GRIDS[ggml_type]
    bits = np.unpackbits(np.frombuffer(base64.b64decode(grid.members), np.uint8), bitorder="little")
    numbers = np.flatnonzero(bits)[:, np.newaxis]
    digits = numbers // len(grid.levels) ** np.arange(grid.n_dims) % len(grid.levels)
    return items(np.array(grid.levels, np.int8)[digits])


@cache
def pairs_of_points(ggml_type: GGMLType) -> Items:
    """Two points in one item, the first by the lower byte of the index."""
    alone = coordinates(points(ggml_type))  # (256, 4)
    second, first = np.divmod(np.arange(1 << 16), 256)
    return items(np.concatenate([alone[first], alone[second]], axis=1))


@cache
def signed_points(ggml_type: GGMLType) -> Items:
    """Points times even signs, by the 7 signs above the bits of the point's index."""
    product = coordinates(even_signs())[:, np.newaxis] * coordinates(points(ggml_type))  # (128, n_points, 8)
    return items(product.reshape(-1, 8))


@cache
def shifted_points() -> Items:
    """`8*grid + 1` of IQ1_S' points, then `8*grid - 1` of them."""
    eights = coordinates(points(GGMLType.IQ1_S)) * np.int8(8)
    return items(np.concatenate([eights + np.int8(1), eights - np.int8(1)]))


@cache
def all_signs() -> Items:
    """1 and -1 for the bits of a byte that are 0 and 1, the lowest first."""
    return items(1 - 2 * fields(np.arange(256, dtype=np.uint8)[:, np.newaxis], 1).view(np.int8))


@cache
def even_signs() -> Items:
    """1 and -1 for 7 bits, as in `all_signs`; the eighth sign makes the number of -1 even."""
    seven = np.arange(128, dtype=np.uint8)
    parity: U8 = np.bitwise_xor.reduce(fields(seven[:, np.newaxis], 1), axis=1)
    return np.take(all_signs(), seven | parity << 7)


def items(weights: I8) -> Items:
    """`(n, k)` numbers as `(n,)` items of k bytes, which numpy copies at once."""
    joined: Items = np.ascontiguousarray(weights, np.int8).view(f"<i{weights.shape[1]}").reshape(-1)
    return joined


def coordinates(points_: Items) -> I8:
    """`(n,)` items as `(n, k)` numbers."""
    return points_.view(np.int8).reshape(len(points_), -1)
