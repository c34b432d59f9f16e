"""What does ggml's CPU backend make of activations before it multiplies them with weights?

A matrix product converts each row of activations to the type that the weights' dot product wants: Q4_0 weights meet
Q8_0 activations, K-types Q8_K. The conversions to Q8_0 and Q8_1 are SIMD code that rounds otherwise than the reference
quantiser: ties to even, and on x86 by `127 / max|x|` instead of `1 / (max|x| / 127)`.
Source: llama.cpp 0c1e570 ggml/src/ggml-cpu/ggml-cpu.c, type_traits_cpu, ggml_compute_forward_mul_mat;
ggml/src/ggml-cpu/arch/x86/quants.c and arch/arm/quants.c, quantize_row_q8_0, quantize_row_q8_1.
"""

import platform
from collections.abc import Callable, Mapping
from typing import Final

import numpy as np

from ggufphys.errors import UnsupportedError
from ggufphys.gguf import GGMLType
from ggufphys.graph.allocating.work import vec_dot_type
from refengine.blocks import BLOCKS, F32, U8, Blocks
from refengine.dequant.table import FORMATS, dequantize
from refengine.quant import simple
from refengine.quant.simple import I32
from refengine.quant.table import QUANTIZERS, fill_blocks

# Of every type of weights, the type that activations are converted to before their dot product.
VEC_DOT_TYPES: Final[Mapping[GGMLType, GGMLType]] = {t: vec_dot_type(t) for t in FORMATS if t is not GGMLType.Q8_K}


def levels_x86(x: F32) -> tuple[F32, I32]:
    """`d = max|x| / 127`; `q = x * (127 / max|x|)` to the nearest, ties to even: `(n,)` and `(n, 32)`."""
    largest = np.abs(x).max(axis=1)
    per_unit = np.where(largest != 0, np.float32(127) / largest, np.float32(0))
    return largest / np.float32(127), simple.as_int(np.rint(x * per_unit[:, np.newaxis]))


def levels_arm(x: F32) -> tuple[F32, I32]:
    """`d = max|x| / 127`; `q = x * (1 / d)` to the nearest, ties to even: `(n,)` and `(n, 32)`."""
    d = np.abs(x).max(axis=1) / np.float32(127)
    return d, simple.as_int(np.rint(x * simple.inverse(d)))


_LEVELS: Final[Mapping[str, Callable[[F32], tuple[F32, I32]]]] = {
    "x86_64": levels_x86,
    "AMD64": levels_x86,
    "aarch64": levels_arm,
    "arm64": levels_arm,
}


def quantize_activations(ggml_type: int, x: F32, *, machine: str | None = None) -> U8:
    """`x` as blocks of a type in VEC_DOT_TYPES' values, bit for bit what ggml's CPU backend gives for finite values.

    Args:
        ggml_type: F32, F16, BF16, Q8_0, Q8_1 or Q8_K.
        x: `(..., n)`, n a multiple of the block size.
        machine: the processor as `platform.machine()` names it; None for this one. On x86, one with AVX.

    Returns:
        Blocks as bytes, `(nbytes,)`.

    Raises:
        UnsupportedError: activations are not converted to this type, or a processor whose rounding is not known here.
        ValueError: the elements are not a whole number of blocks.
    """
    quantizers = {t: QUANTIZERS[t] for t in dict.fromkeys(VEC_DOT_TYPES.values())}
    machine = machine or platform.machine()
    if ggml_type in (GGMLType.Q8_0, GGMLType.Q8_1):
        if machine not in _LEVELS:
            raise UnsupportedError(
                f"how ggml rounds activations to Q8_0 on {machine!r} is not known; known are {', '.join(_LEVELS)}"
            )
        levels = _LEVELS[machine]

        def q8_0(rows: F32, blocks: Blocks) -> None:
            blocks["d"], q = levels(rows)
            blocks["qs"] = np.clip(q, -128, 127)  # what int32 can't hold is its smallest, saturated

        def q8_1(rows: F32, blocks: Blocks) -> None:
            q8_0(rows, blocks)
            d, q = levels(rows)
            blocks["s"] = d * q.sum(axis=1, dtype=np.int32).astype(np.float32)

        quantizers |= {GGMLType.Q8_0: q8_0, GGMLType.Q8_1: q8_1}
    return fill_blocks(quantizers, ggml_type, x)


def round_activations(weight_type: int, x: F32) -> F32:
    """The activations that weights of `weight_type` meet: `x` after its conversion, as F32 of the same shape.

    A product with these and the dequantised weights differs from ggml's by F32 sums alone, except for Q4_1 and Q5_1:
    their minima meet a sum of activations that is rounded to a half of its own.

    Raises:
        UnsupportedError: ggml has no dot product for the type, or as `quantize_activations`.
        ValueError: as `quantize_activations`.
    """
    try:
        converted = VEC_DOT_TYPES[GGMLType(weight_type)]
    except (KeyError, ValueError):
        raise UnsupportedError(
            f"ggml multiplies no weights of type number {int(weight_type)}; it does of "
            f"{', '.join(t.name for t in VEC_DOT_TYPES)}"
        ) from None
    raw = quantize_activations(converted, x)
    if converted is GGMLType.Q8_1:  # not a type of weights: no kernel
        blocks = raw.view(BLOCKS[converted])
        return (blocks["qs"] * blocks["d"].astype(np.float32)[:, np.newaxis]).reshape(x.shape)
    return dequantize(converted, raw).reshape(x.shape)
