"""How does a tensor of the graph look in numpy? As an array over its bytes, axes the other way round.

ggml counts axes from the innermost, numpy from the outermost: a tensor of ne (D, H, T, 1) is an array `(1, T, H, D)`.
A type of blocks gives an array of whole blocks, `(.., n_blocks)` of `type_size` bytes each.
"""

from collections.abc import Mapping
from mmap import ACCESS_COPY, mmap
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ggufphys.gguf.ggml_types import SIZES, GGMLType
from ggufphys.graph.ir import Tensor
from refengine.blocks import F32, U8

Array = npt.NDArray[Any]

HALF_INFINITY: Final = np.int16(0x7C00)
HALF_MAGNITUDE: Final = np.int16(0x7FFF)  # without the sign
INFINITY: Final = np.int32(0x7F800000)  # of an F32
HALF_IN_PLACE: Final = np.int32(~0x70000000)
HALF_SCALE: Final = np.float32(2.0**112)  # between the exponents' biases, 127 and 15
HALF_MIN_POWER: Final = (127 - 14) << 23  # F32's exponents, where its bits have them: of the least normal half
HALF_MAX_POWER: Final = (127 + 15) << 23  # of the largest
HALF_BITS: Final = (13 << 23) + (1 << 22)  # what is added to an exponent: 13, and a mantissa of 1.5
ALIGNMENT: Final = 64  # bytes: a cache line, and the widest vector
MALLOC_MOST: Final = 31 << 20  # bytes: with what malloc adds, below the most that its threshold may rise to

DTYPES: Final[Mapping[GGMLType, str]] = {
    GGMLType.F32: "<f4",
    GGMLType.F16: "<f2",
    GGMLType.BF16: "<u2",  # the upper half of an F32; numpy has no such type
    GGMLType.I8: "i1",
    GGMLType.I16: "<i2",
    GGMLType.I32: "<i4",
    GGMLType.I64: "<i8",
    GGMLType.F64: "<f8",
}


def dtype_of(ggml_type: GGMLType) -> np.dtype[Any]:
    """Numpy's type for an element, or for a block as so many bytes."""
    name = DTYPES.get(ggml_type)
    return np.dtype(name) if name is not None else np.dtype((np.void, SIZES[ggml_type].type_size))


def show(raw: U8, tensor: Tensor, offset: int = 0) -> Array:
    """The tensor as an array over `raw`, its first byte at `offset`: four axes, strides as the tensor has them."""
    n0, n1, n2, n3 = tensor.ne
    shape = (n3, n2, n1, n0 // SIZES[tensor.type].block_size)
    s0, s1, s2, s3 = tensor.nb
    return np.ndarray(shape, dtype_of(tensor.type), raw.data, offset, (s3, s2, s1, s0))


def reserved_bytes(nbytes: int) -> U8:
    """Zeroed bytes that begin at a page; pages that are never written take no memory.

    From the system itself: numpy would ask for huge pages, and malloc might put them between what comes and goes.
    """
    return np.frombuffer(mmap(-1, max(nbytes, 1), access=ACCESS_COPY), np.uint8)[:nbytes]


def aligned_bytes(nbytes: int) -> U8:
    """Zeroed bytes that begin at a cache line."""
    raw = np.zeros(nbytes + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + nbytes]


def keep_temporaries() -> None:
    """Have malloc keep what arrays of less than 32 MiB leave behind, from here on, for those that come after them.

    glibc's gives as much back to the system, and gets it again page by page, until it was told by something as large
    that came and went: this. Without it a step of one token takes up to twice as long. Elsewhere it does nothing.

    Source: glibc malloc/malloc.c, __libc_free (mmap_threshold, trim_threshold), DEFAULT_MMAP_THRESHOLD_MAX.
    """
    np.empty(MALLOC_MOST, np.uint8)


def rows_of(array: Array) -> Array:
    """The array as a matrix `(n_rows, n)`: a view where strides allow, else a copy."""
    return array.reshape(-1, array.shape[-1])


def bf16_to_f32(halves: Array) -> F32:
    """BF16 is the upper half of an F32."""
    return (halves.astype(np.uint32) << 16).view(np.float32)


def f32_to_bf16(values: F32) -> Array:
    """The nearest BF16, ties to even; a NaN stays one (quiet).

    Source: llama.cpp 0c1e570 ggml/src/ggml-impl.h, ggml_compute_fp32_to_bf16.
    """
    bits = np.ascontiguousarray(values).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    is_nan = (bits & 0x7FFFFFFF) > 0x7F800000
    return np.where(is_nan, (bits >> 16) | 64, rounded).astype(np.uint16)


def f16_to_f32(halves: Array) -> F32:
    """What a cast to F32 gives, in a fraction of its time: the halves' bits in F32's places, times 2^112."""
    raw = halves.view(np.int16)
    magnitudes = np.bitwise_and(raw, HALF_MAGNITUDE)
    largest = magnitudes.max(initial=0)
    if largest > HALF_INFINITY:  # no number
        return halves.astype(np.float32)
    bits = raw.astype(np.int32)
    np.left_shift(bits, 13, bits)
    np.bitwise_and(bits, HALF_IN_PLACE, bits)  # the sign was spread over the exponent
    values: F32 = bits.view(np.float32)
    np.multiply(values, HALF_SCALE, values)
    if largest == HALF_INFINITY:  # times 2^112 it is 2^16
        np.bitwise_or(bits, INFINITY, out=bits, where=magnitudes == HALF_INFINITY)
    return values


def f32_to_f16(values: F32) -> Array:
    """The nearest half, ties to even, as a cast gives it, in a fraction of its time: `f16_to_f32` the other way."""
    steps = _half_steps(values)
    if steps is None:
        return values.astype(np.float16)
    rounded = np.abs(values)
    np.add(rounded, steps, rounded)
    np.subtract(rounded, steps, rounded)
    np.multiply(rounded, 1 / HALF_SCALE, rounded)
    bits = rounded.view(np.uint32)
    np.right_shift(bits, 13, bits)
    signs = np.right_shift(values.view(np.uint32), 16)
    np.bitwise_and(signs, 0x8000, signs)
    np.bitwise_or(bits, signs, bits)
    return bits.astype(np.uint16).view(np.float16)


def rounded_to_f16(values: F32) -> F32:
    """What casts to F16 and back leave of F32 values, to the bit, in a fraction of their time."""
    steps = _half_steps(values)
    if steps is None:
        return values.astype(np.float16).astype(np.float32)
    rounded: F32 = values + steps
    return np.copysign(np.subtract(rounded, steps, rounded), values, rounded)


def _half_steps(values: F32) -> F32 | None:
    """What takes, when it is added, all the bits that a half has no room for; None where one has no room for a value.

    That is 1.5 * 2^13 times a value's power of two; below 2^-14, where halves stand equally far apart, that of 2^-14.
    """
    powers = np.bitwise_and(values.view(np.uint32), 0x7F800000)
    if powers.max(initial=0) >= HALF_MAX_POWER:  # may be infinity as a half, or is no number
        return None
    np.maximum(powers, HALF_MIN_POWER, out=powers)
    powers += HALF_BITS
    return powers.view(np.float32)
