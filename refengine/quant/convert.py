"""How do numbers get from one of ggml's types to another? Floats by casts, blocks by (de)quantisation.

Arrays are as `refengine.arrays.show` gives them.
"""

from typing import Final

import numpy as np

from ggufphys.gguf.ggml_types import SIZES, GGMLType
from refengine.arrays import Array, bf16_to_f32, dtype_of, f16_to_f32, f32_to_bf16, f32_to_f16, rounded_to_f16
from refengine.blocks import BLOCKS, F32
from refengine.dequant.table import dequantize
from refengine.quant.activations import quantize_activations
from refengine.quant.table import quantize

MANY: Final = 4096  # numbers, from which on arithmetic is faster than numpy's casts from and to halves
AT_RUN_TIME: Final = frozenset({GGMLType.Q8_0, GGMLType.Q8_1, GGMLType.Q8_K})


def to_f32(array: Array, ggml_type: GGMLType) -> F32:
    """The elements as F32; an F32 array is returned as it is."""
    if ggml_type is GGMLType.F32:
        return array
    if ggml_type is GGMLType.F16:
        return f16_to_f32(array) if array.size >= MANY else array.astype(np.float32)
    if ggml_type is GGMLType.BF16:
        return bf16_to_f32(array)
    if ggml_type is GGMLType.I32:
        return array.astype(np.float32)
    block_size = SIZES[ggml_type].block_size
    raw = np.ascontiguousarray(array).view(np.uint8)
    return dequantize(ggml_type, raw.reshape(-1)).reshape(*array.shape[:-1], array.shape[-1] * block_size)


def from_f32(values: F32, ggml_type: GGMLType) -> Array:
    """The elements as another type, rounded as ggml does; blocks lie along the last axis."""
    if ggml_type is GGMLType.F32:
        return values
    if ggml_type is GGMLType.F16:
        with np.errstate(over="ignore"):  # beyond 65,504 it is infinity, as in C
            return f32_to_f16(values) if values.size >= MANY else values.astype(np.float16)
    if ggml_type is GGMLType.BF16:
        return f32_to_bf16(values)
    if ggml_type is GGMLType.I32:  # towards zero, as C does
        return values.astype(np.int32)
    n_blocks = values.shape[-1] // SIZES[ggml_type].block_size
    # What ggml's CPU backend converts itself, at run time, it rounds otherwise than its reference quantiser.
    convert = quantize_activations if ggml_type in AT_RUN_TIME else quantize
    return convert(ggml_type, values).view(dtype_of(ggml_type)).reshape(*values.shape[:-1], n_blocks)


def rounded(values: F32, ggml_type: GGMLType) -> F32:
    """What is left of F32 values after a journey through another type."""
    if ggml_type is GGMLType.F32:
        return values
    if ggml_type is GGMLType.F16 and values.size >= MANY:
        return rounded_to_f16(values)
    if ggml_type is GGMLType.Q8_1:  # not a type of weights: ggml has no way back
        blocks = np.ascontiguousarray(from_f32(values, ggml_type)).view(BLOCKS[ggml_type])
        return (blocks["qs"] * blocks["d"].astype(np.float32)[..., np.newaxis]).reshape(values.shape)
    return to_f32(from_f32(values, ggml_type), ggml_type)
