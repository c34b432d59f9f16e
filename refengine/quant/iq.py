"""How do F32 become IQ4_NL, whose 16 levels are not evenly spaced?

Source: llama.cpp 0c1e570 ggml/src/ggml-quants.c, quantize_row_iq4_nl_ref, quantize_row_iq4_nl_impl, best_index_int8.
"""

from typing import Final

import numpy as np

from refengine.blocks import F32, U8, Blocks
from refengine.dequant.lookup import IQ4_VALUES
from refengine.quant.k import total
from refengine.quant.simple import farthest, packed_nibbles

LEVELS: Final = np.frombuffer(IQ4_VALUES[0], np.int8)[:16].astype(np.float32)
NEGLIGIBLE: Final = np.float32(1e-15)


def iq4_nl(x: F32, blocks: Blocks) -> None:
    """q: the level nearest to x where the value farthest from 0 is -127; d: of least squares, errors weighted by x**2.

    Blocks of smaller values than 1e-15 get a d of 0; their q, in C whatever was there before, are 0 here.
    """
    scale = farthest(x) / LEVELS[0]
    q = nearest_level(x * (1 / scale)[:, np.newaxis])
    columns, levels = x.T, LEVELS[q].T
    weighted = columns * columns * levels
    sum_qx, sum_q2 = total(weighted * columns), total(weighted * levels)
    negligible = np.abs(x).max(axis=1) < NEGLIGIBLE
    blocks["d"] = np.where((sum_q2 > 0) & ~negligible, sum_qx / sum_q2, np.float32(0))
    q[negligible] = 0
    blocks["qs"] = packed_nibbles(q)


def nearest_level(x: F32) -> U8:
    """The number of the level nearest to each x, of two as near the upper."""
    above = np.clip(np.searchsorted(LEVELS, x, side="right"), 1, len(LEVELS) - 1)
    nearer_below = x - LEVELS[above - 1] < LEVELS[above] - x
    return (above - nearer_below).astype(np.uint8)
