"""How do F32 become floats of 16 bits and the types with one scale a block?

Quantisers: `(x, blocks)` fills `(n_blocks,)` structs from `x`, F32 of shape `(n_blocks, block_size)`, with the bits
that ggml's reference quantisers give for finite x. Here, unlike in dequantisation, every operation rounds, so each
stands in C's order and in F32. The scale that divides is the float; the one that is stored is rounded to a half.
Source: llama.cpp 0c1e570 ggml/src/ggml-quants.c, quantize_row_*_ref; ggml/src/ggml-impl.h, ggml_compute_fp32_to_bf16.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from refengine.blocks import F32, U8, Blocks

I32 = npt.NDArray[np.int32]


def f32(x: F32, blocks: Blocks) -> None:
    """`x` as it is."""
    blocks["w"] = x[:, 0]


def f16(x: F32, blocks: Blocks) -> None:
    """The nearest half, ties to even; Inf beyond the largest. A NaN becomes the plain quiet one of its sign."""
    w = x[:, 0].astype(np.float16)
    w[np.isnan(w)] = np.nan
    blocks["w"] = np.copysign(w, x[:, 0])


def bf16(x: F32, blocks: Blocks) -> None:
    """The nearest float with 16 zero bits at its end, ties to even; NaNs keep what they can of their payload."""
    bits = x[:, 0].view(np.uint32)
    rounded = (bits + (0x7FFF + (bits >> 16 & 1))) >> 16
    blocks["w"] = np.where(np.isnan(x[:, 0]), bits >> 16 | 0x40, rounded)


def q4_0(x: F32, blocks: Blocks) -> None:
    """`d = max / -8`, max the value of largest magnitude, so that it becomes 0 exactly; `q = trunc(x/d + 8.5)`."""
    d = farthest(x) / np.float32(-8)
    blocks["d"] = d
    blocks["qs"] = packed_nibbles(rounded_up_to(15, x * inverse(d) + np.float32(8.5)))


def q4_1(x: F32, blocks: Blocks) -> None:
    """`d = (max - min) / 15`, `m = min`; `q = trunc((x - min)/d + 0.5)`."""
    m = lowest(x)
    d = (x.max(axis=1, keepdims=True) - m) / np.float32(15)
    blocks["d"], blocks["m"] = d[:, 0], m[:, 0]
    blocks["qs"] = packed_nibbles(rounded_up_to(15, (x - m) * inverse(d[:, 0]) + np.float32(0.5)))


def q5_0(x: F32, blocks: Blocks) -> None:
    """As Q4_0 with 16 for 8; the fifth bits apart, of weight j in bit j of qh."""
    d = farthest(x) / np.float32(-16)
    blocks["d"] = d
    q = rounded_up_to(31, x * inverse(d) + np.float32(16.5))
    blocks["qs"], blocks["qh"] = packed_nibbles(q & 15), np.packbits(q >> 4, axis=1, bitorder="little")


def q5_1(x: F32, blocks: Blocks) -> None:
    """As Q4_1 with 31 for 15; the fifth bits as in Q5_0."""
    m = lowest(x)
    d = (x.max(axis=1, keepdims=True) - m) / np.float32(31)
    blocks["d"], blocks["m"] = d[:, 0], m[:, 0]
    q = as_int(np.trunc((x - m) * inverse(d[:, 0]) + np.float32(0.5))).astype(np.uint8)
    blocks["qs"], blocks["qh"] = packed_nibbles(q & 15), np.packbits(q >> 4 & 1, axis=1, bitorder="little")


def q8_0(x: F32, blocks: Blocks) -> None:
    """`d = max|x| / 127`; `q = round(x/d)`, ties away from zero."""
    d = np.abs(x).max(axis=1) / np.float32(127)
    blocks["d"] = d
    blocks["qs"] = as_int(rounded_away(x * inverse(d)))


def q8_1(x: F32, blocks: Blocks) -> None:
    """As Q8_0, with `s = d * sum(q)`, d as the float that it was."""
    q8_0(x, blocks)
    d = np.abs(x).max(axis=1) / np.float32(127)
    blocks["s"] = d * blocks["qs"].sum(axis=1, dtype=np.int32).astype(np.float32)


def q8_k(x: F32, blocks: Blocks) -> None:
    """`d = max / -127`, max the value of largest magnitude; `q = round(x * (-127/max))`, ties to even, 127 at most.

    `bsums` are the sums of 16 q each.
    """
    iscale = np.float32(-127) / farthest(x)
    q = np.minimum(nearest_int(x * iscale[:, np.newaxis]), 127).astype(np.int8)
    blocks["qs"], blocks["d"] = q, 1 / iscale
    blocks["bsums"] = q.reshape(len(q), -1, 16).sum(axis=2, dtype=np.int16)
    blocks[~x.any(axis=1)] = 0


def farthest(x: F32) -> F32:
    """The value farthest from 0 of each row, the first of equals: `(n,)`."""
    found: F32 = np.take_along_axis(x, np.abs(x).argmax(axis=1)[:, np.newaxis], axis=1)[:, 0]
    return found + np.float32(0)  # the search starts from +0: of zeros, -0 is not found


def lowest(x: F32) -> F32:
    """The lowest value of each row, the first of equals (0 equals -0): `(n, 1)`."""
    found: F32 = np.take_along_axis(x, x.argmin(axis=1)[:, np.newaxis], axis=1)
    return found


def inverse(d: F32) -> F32:
    """`1/d` as a column, 0 where d is 0."""
    return np.where(d != 0, 1 / d, np.float32(0))[:, np.newaxis]


def rounded_away(x: F32) -> F32:
    """C's roundf: to the nearest integer, ties away from 0 (numpy's rint takes ties to even)."""
    whole = np.trunc(x)
    whole += np.copysign(np.abs(x - whole) >= 0.5, x)  # the difference is exact
    return whole


def nearest_int(x: F32) -> I32:
    """The nearest integer, ties to even, as ggml finds it: in the last bits of `x + 1.5 * 2**23`.

    Of |x| above 2**22, which no sane scale gives, the same other bits as in C.
    """
    bits = (x + np.float32(12582912)).view(np.int32)
    return (bits & 0x007FFFFF) - 0x00400000


def as_int(x: F32) -> I32:
    """C's conversion of whole floats: what int32 can't hold becomes its smallest on x86."""
    return x.astype(np.int32)


def rounded_up_to(highest: int, x: F32) -> U8:
    """C's `MIN(highest, (int8_t) x)` as bytes."""
    return np.minimum(as_int(np.trunc(x)).astype(np.int8), highest).astype(np.uint8)


def packed_nibbles(q: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """`(n, 32)` numbers of 4 bits as `(n, 16)` bytes: the second half of a row above the first."""
    half = q.shape[1] // 2
    packed: npt.NDArray[Any] = q[:, :half] | q[:, half:] << 4
    return packed
