"""How do the K-types, with their quantised scales inside super-blocks of 256 weights, become F32?

Kernels as in `simple.py`, and for the same reason bit-exact: half times 6-bit scale times q is at most 24 bits
(Q6_K: 11 + 7 + 5), exact in F32 in any order; only the subtraction of the minimum rounds. (Q8_K's scale is a float:
one rounded product, as in C.)

Shapes: `n` super-blocks; a super-block is rows of 32 weights, and each plane of its bytes holds some of the rows. The
high bits, in more planes, set the order in which q is built; `w` is seen in that order when q is written into it.
Source: llama.cpp 0c1e570 ggml/src/ggml-quants.c, dequantize_row_*_K, get_scale_min_k4.
"""

import numpy as np

from refengine.blocks import F32, I8, U8, Blocks
from refengine.dequant.unpack import column, contiguous, planes


def q2_k(blocks: Blocks, w: F32) -> None:
    """`w = d*sc*q - dmin*m`, q of 2 bits; a byte of `scales` (sc low, m high nibble) for 16 weights each."""
    q = planes(blocks["qs"], 2).reshape(4, -1, 2, 32)  # (plane, n, half, 32)
    w.reshape(-1, 2, 4, 32).transpose(2, 0, 1, 3)[:] = q
    scale_and_shift(w, planes(blocks["scales"], 4), blocks["dm"])


def q3_k(blocks: Blocks, w: F32) -> None:
    """`w = d*(sc - 32)*(q - 4)`, q of 3 bits: 2 in qs, the highest of row r in bit r of hmask; 16 weights a scale."""
    q = planes(~contiguous(blocks["hmask"]), 1).reshape(2, 4, -1, 32)  # (half, plane of qs, n, 32)
    q *= 0xFC  # -4 where the highest bit is not set
    q |= planes(blocks["qs"].reshape(-1, 2, 32).swapaxes(0, 1), 2).swapaxes(0, 1)
    w.reshape(-1, 2, 4, 32).transpose(1, 2, 0, 3)[:] = q.view(np.int8)
    sc = scales_q3_k(blocks["scales"])  # (n, 16)
    sc -= 32
    scale(w, sc.view(np.int8), blocks["d"])


def q4_k(blocks: Blocks, w: F32) -> None:
    """`w = d*sc*q - dmin*m`, q of 4 bits; sc and m of 6 bits for 32 weights each."""
    q = planes(blocks["qs"], 4).reshape(2, -1, 4, 32)  # (plane, n, quarter, 32)
    w.reshape(-1, 4, 2, 32).transpose(2, 0, 1, 3)[:] = q
    scale_and_shift(w, scale_min_k4(blocks["scales"]), blocks["dm"])


def q5_k(blocks: Blocks, w: F32) -> None:
    """`w = d*sc*q - dmin*m`, q of 5 bits: 4 in qs, the highest of row r in bit r of qh; sc and m as in Q4_K."""
    q = planes(blocks["qh"], 1).reshape(4, 2, -1, 32)  # (quarter, plane of qs, n, 32)
    q *= 16
    q |= planes(blocks["qs"].reshape(-1, 4, 32).swapaxes(0, 1), 4).swapaxes(0, 1)
    w.reshape(-1, 4, 2, 32).transpose(1, 2, 0, 3)[:] = q
    scale_and_shift(w, scale_min_k4(blocks["scales"]), blocks["dm"])


def q6_k(blocks: Blocks, w: F32) -> None:
    """`w = d*sc*(q - 32)`, q of 6 bits: 4 in ql, 2 in qh; sc an int8 for 16 weights.

    In each half, the low planes of ql's two rows are rows 0 and 1, their high planes rows 2 and 3; row r has its upper
    bits in plane r of qh.
    """
    q = planes(blocks["qh"], 2).reshape(2, 2, -1, 2, 32)  # (plane of ql, row of ql, n, half, 32)
    q *= 16
    q |= planes(blocks["ql"].reshape(-1, 2, 2, 32).transpose(2, 0, 1, 3), 4)
    q -= 32
    w.reshape(-1, 2, 2, 2, 32).transpose(2, 3, 0, 1, 4)[:] = q.view(np.int8)
    scale(w, blocks["scales"], blocks["d"])


def q8_k(blocks: Blocks, w: F32) -> None:
    """`w = d * q`, q an int8, d a float; activations only, `bsums` serves dot products."""
    w[:] = blocks["qs"]
    w *= column(blocks["d"])


def scale(w: F32, sc: U8 | I8 | F32, d: F32) -> None:
    """Multiply `w`, `(n, 256)`, by `d*sc`: sc of shape `(n, k)` for 256 / k weights each, d `(n,)`."""
    factors = column(d) * sc.astype(np.float32)
    weights = w.reshape(-1)
    weights *= np.repeat(factors.reshape(-1), w.size // factors.size)


def scale_and_shift(w: F32, sc_and_m: U8, dm: F32) -> None:
    """Turn q in `w`, `(n, 256)`, into `d*sc*q - dmin*m`: sc and m `(2, n, k)`, d and dmin `(n, 2)`."""
    factors = sc_and_m.astype(np.float32)
    factors *= dm.astype(np.float32).T[:, :, np.newaxis]
    factors = factors.reshape(2, -1)
    weights = w.reshape(-1)
    weights *= np.repeat(factors[0], w.size // factors[0].size)
    weights -= np.repeat(factors[1], w.size // factors[1].size)


def scale_min_k4(scales: U8) -> U8:
    """8 scales and 8 minima of 6 bits, `(2, n, 8)`, from `(n, 12)` bytes.

    Bytes, for j = 0..3, highest bit first; capitals are the upper two bits of the number they name:
        j      SSssssss   scale j,  and of scale j+4 the upper bits
        4+j    MMmmmmmm   min j,    and of min j+4 the upper bits
        8+j    mmmmssss   of min j+4 and scale j+4 the lower bits
    """
    words = scales.view("<u4")  # (n, 3): j = 0..3 at once, as in C
    first, last = words[:, :2].T, words[:, 2]  # (2, n), scale and min; (n,)
    unpacked = np.empty((2, len(words), 2), "<u4")
    unpacked[:, :, 0] = first & 0x3F3F3F3F
    unpacked[:, :, 1] = first >> 2 & 0x30303030
    unpacked[0, :, 1] |= last & 0x0F0F0F0F
    unpacked[1, :, 1] |= last >> 4 & 0x0F0F0F0F
    return unpacked.view(np.uint8)


def scales_q3_k(scales: U8) -> U8:
    """16 scales of 6 bits, `(n, 16)`, from `(n, 12)` bytes.

    Bytes, for j = 0..3, highest bit first; capitals are the upper two bits of the number they name:
        j      ccccaaaa   of scale j and scale 8+j the lower bits
        4+j    ddddbbbb   of scale 4+j and scale 12+j the lower bits
        8+j    DDCCBBAA   the upper bits of all four
    """
    packed = contiguous(scales)
    lower = packed[:, :8].copy().view("<u8")[:, 0]  # eight at once
    upper = packed[:, 8:].copy().view("<u4")[:, 0].astype("<u8")
    upper |= upper << 30  # B and D, 2 above A and C, to the upper half
    unpacked = np.empty((len(scales), 2), "<u8")  # a and b; c and d
    unpacked[:, 0] = lower & 0x0F0F0F0F0F0F0F0F | (upper & 0x0303030303030303) << 4
    unpacked[:, 1] = lower >> 4 & 0x0F0F0F0F0F0F0F0F | upper & 0x3030303030303030
    return unpacked.view(np.uint8)
