"""What the minima of Q4_1 and Q5_1 meet: sums of activations that ggml rounds to halves.

A dot product with such weights is d_w d_x sum(q_w q_x) + m s. The block of activations keeps s in F16: it stands for
d_x sum(q_x). Products of dequantised weights and rounded activations take that sum as it is; here is the rest.
Source: llama.cpp 0c1e570 ggml/src/ggml-cpu/quants.c, ggml_vec_dot_q4_1_q8_1_generic, ggml_vec_dot_q5_1_q8_1_generic.
"""

from typing import Final

import numpy as np

from ggufphys.gguf.ggml_types import SIZES, GGMLType
from refengine.arrays import Array
from refengine.blocks import BLOCKS, F32
from refengine.quant.activations import quantize_activations

WITH_MINIMA: Final = frozenset({GGMLType.Q4_1, GGMLType.Q5_1})


def minima(blocks: Array, ggml_type: GGMLType) -> F32:
    """The minimum of each block: `(.., n_blocks)`."""
    raw = np.ascontiguousarray(blocks).view(np.uint8).reshape(-1)
    return raw.view(BLOCKS[ggml_type])["m"].astype(np.float32).reshape(blocks.shape)


def lost_sums(x: F32) -> F32:
    """By how much the rounded sum of each block of activations `(.., n)` differs from the sum: `(.., n_blocks)`."""
    blocks = quantize_activations(GGMLType.Q8_1, x).view(BLOCKS[GGMLType.Q8_1])
    sums = blocks["d"].astype(np.float32) * blocks["qs"].sum(axis=1, dtype=np.int32).astype(np.float32)
    lost: F32 = blocks["s"].astype(np.float32) - sums
    return lost.reshape(*x.shape[:-1], x.shape[-1] // SIZES[GGMLType.Q8_1].block_size)
