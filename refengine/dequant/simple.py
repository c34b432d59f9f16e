"""How do floats and the types with one scale a block (Q4_0 and its kin) become F32?

Kernels: `(blocks, w)` fills `w`, C-contiguous F32 of shape `(n_blocks, block_size)`, from `(n_blocks,)` structs.
Integers are written into `w` first and scaled there: that saves the temporary and its pass over memory.

Bits stay those of C without copying its order of operations: an 11-bit half times the integers here fits F32's 24
bits, so products are exact and only the last addition rounds; a compiler's fused multiply-add can't differ either.
Source: llama.cpp 0c1e570 ggml/src/ggml-quants.c, dequantize_row_*; ggml/src/ggml-impl.h, the GGML_*_TO_FP32 macros.
"""

from typing import Final

import numpy as np

from refengine.blocks import F32, Blocks
from refengine.dequant.unpack import column, contiguous, fields, nibbles

with np.errstate(all="ignore"):  # signalling NaNs are among them
    HALVES: Final[F32] = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)  # by bit pattern


def f32(blocks: Blocks, w: F32) -> None:
    """`w` as it is."""
    w[:, 0] = blocks["w"]


def f16(blocks: Blocks, w: F32) -> None:
    """A half's value: its bits, moved to where a float has them, are the value times 2**-112; four fast passes.

    Inf and NaN have an exponent of their own: a chunk that has one goes by table, as slow as numpy's cast.
    """
    halves = blocks["w"].view(np.uint16)
    if (halves << 1).max() >= 0x7C00 << 1:
        np.take(HALVES, halves, out=w[:, 0], mode="clip")  # any other mode copies `out`
        return
    bits = w.view(np.int32)
    bits[:, 0] = halves.view(np.int16)  # the upper half full of copies of the sign
    bits <<= 13
    bits &= np.int32(-0x7000_2000)  # the first of these, and the 15 bits of exponent and mantissa
    w *= np.float32(2.0**112)


def bf16(blocks: Blocks, w: F32) -> None:
    """The upper 16 bits of a float; the lower 16 are 0."""
    bits = w.view(np.uint32)
    bits[:, 0] = blocks["w"]
    bits <<= 16


def q1_0(blocks: Blocks, w: F32) -> None:
    """`w = d * (2*q - 1)`, q of 1 bit: weight j is bit j % 8 of byte j // 8."""
    q = fields(blocks["qs"], 1)
    q *= 2
    q -= 1
    w[:] = q.view(np.int8)
    w *= column(blocks["d"])


def q2_0(blocks: Blocks, w: F32) -> None:
    """`w = d * (q - 1)`, q of 2 bits: weight j is bits 2*(j % 4) and up of byte j // 4."""
    q = fields(blocks["qs"], 2)
    q -= 1
    w[:] = q.view(np.int8)
    w *= column(blocks["d"])


def q4_0(blocks: Blocks, w: F32) -> None:
    """`w = d * (q - 8)`, q of 4 bits."""
    q = nibbles(blocks["qs"])
    q -= 8
    w[:] = q.view(np.int8)
    w *= column(blocks["d"])


def q4_1(blocks: Blocks, w: F32) -> None:
    """`w = d * q + m`, q of 4 bits."""
    w[:] = nibbles(blocks["qs"])
    w *= column(blocks["d"])
    w += column(blocks["m"])


def q5_0(blocks: Blocks, w: F32) -> None:
    """`w = d * (q - 16)`, q of 5 bits: 4 in qs, the highest of weight j in bit j of qh."""
    q = fields(~contiguous(blocks["qh"]), 1)
    q *= 0xF0  # -16 where the highest bit is not set
    q |= nibbles(blocks["qs"])
    w[:] = q.view(np.int8)
    w *= column(blocks["d"])


def q5_1(blocks: Blocks, w: F32) -> None:
    """`w = d * q + m`, q of 5 bits as in Q5_0."""
    q = fields(blocks["qh"], 1)
    q *= 16
    q |= nibbles(blocks["qs"])
    w[:] = q
    w *= column(blocks["d"])
    w += column(blocks["m"])


def q8_0(blocks: Blocks, w: F32) -> None:
    """`w = d * q`, q an int8."""
    w[:] = blocks["qs"]
    w *= column(blocks["d"])
