"""How do the types whose 4 bits stand for a value of a short list become F32?

Kernels as in `simple.py`; planes of nibbles as there, too. Products are exact in F32 but for overflow.
Source: llama.cpp 0c1e570 ggml/src/ggml-quants.c, dequantize_row_iq4_*, _mxfp4, _nvfp4;
ggml/src/ggml-common.h, kvalues_*; ggml/src/ggml-impl.h, ggml_e8m0_to_fp32_half, ggml_ue4m3_to_fp32.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from refengine.blocks import F32, I8, U8, Blocks
from refengine.dequant.k import scale
from refengine.dequant.unpack import column, contiguous, fields, join_planes


def _by_byte(values: Sequence[int]) -> tuple[bytes, bytes]:
    """The values of the low and of the high nibble, for each byte."""
    listed = np.array(values, np.int8)
    byte = np.arange(256)
    return listed[byte & 15].tobytes(), listed[byte >> 4].tobytes()


# Not linear: closer together near 0, as weights are.
IQ4_VALUES: Final = _by_byte((-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113))
# E2M1 floats, doubled: a sign, two bits of exponent, one of mantissa. -0 has become 0.
FP4_VALUES: Final = _by_byte((0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12))


def _halves_of_e8m0() -> F32:
    """`2**(e - 128)` for each byte e: half an E8M0 scale, for the doubled values. 255 is no NaN here."""
    return np.ldexp(np.float32(1), np.arange(256) - 128).astype(np.float32)


def _halves_of_ue4m3() -> F32:
    """Half of each byte seen as an unsigned E4M3 float: 4 bits of exponent less 7, 3 of mantissa, subnormals.

    Bit 7 is ignored, except that 127, NaN in E4M3, gives 0 and 255 does not.
    """
    exponent, mantissa = np.divmod(np.arange(256) & 127, 8)
    units = np.where(exponent > 0, mantissa + 8, mantissa)  # of 2**-9, times 2**(exponent - 1) of normal numbers
    values: F32 = np.ldexp(units.astype(np.float32), np.maximum(exponent, 1) - 11)
    values[127] = 0
    return values


E8M0: Final = _halves_of_e8m0()
UE4M3: Final = _halves_of_ue4m3()


def iq4_nl(blocks: Blocks, w: F32) -> None:
    """`w = d * IQ4[q]`, q of 4 bits."""
    w.reshape(-1)[:] = look_up(IQ4_VALUES, blocks["qs"])
    w *= column(blocks["d"])


def iq4_xs(blocks: Blocks, w: F32) -> None:
    """`w = d*(sc - 32) * IQ4[q]`, q of 4 bits; for 32 weights sc of 6 bits: 4 in scales_l, 2 in scales_h."""
    w.reshape(-1)[:] = look_up(IQ4_VALUES, blocks["qs"].reshape(-1, 16))
    sc = fields(blocks["scales_h"], 2)  # (n, 8)
    sc *= 16
    sc |= fields(blocks["scales_l"], 4)
    sc -= 32
    scale(w, sc.view(np.int8), blocks["d"])


def mxfp4(blocks: Blocks, w: F32) -> None:
    """`w = 2**(e - 127) * FP4[q]`, q of 4 bits, e a byte."""
    w.reshape(-1)[:] = look_up(FP4_VALUES, blocks["qs"])
    w *= column(E8M0[blocks["e"]])


def nvfp4(blocks: Blocks, w: F32) -> None:
    """`w = d * FP4[q]`, q of 4 bits; for 16 weights their own 8 bytes and a d of 8 bits, UE4M3."""
    w.reshape(-1)[:] = look_up(FP4_VALUES, blocks["qs"].reshape(-1, 8))
    sub_blocks = w.reshape(-1, 4, 16)
    sub_blocks *= UE4M3[blocks["d"]][:, :, np.newaxis]


def look_up(values: tuple[bytes, bytes], qs: U8) -> I8:
    """The values of all low nibbles, then of all high ones, of each `qs[i]`: `(n, k)` bytes give `2*n*k` numbers."""
    packed = contiguous(qs).tobytes()  # bytes.translate looks up a byte at a time, in half the time of np.take
    planes = [np.frombuffer(packed.translate(table), np.uint8).reshape(qs.shape) for table in values]
    return join_planes(planes).reshape(-1).view(np.int8)
