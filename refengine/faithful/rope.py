"""Rotary positions to the bit: the C library's angles, and turns in which one product of two is not rounded.

Source: llama.cpp 0c1e570 ggml/src/ggml-cpu/ops.cpp, rope_yarn, rotate_pairs, as GCC compiles them.
"""

import numpy as np

from refengine.blocks import F32
from refengine.faithful.arithmetic import as_f64, fma
from refengine.faithful.functions import c_cos, c_sin
from refengine.ops import rope as plain
from refengine.ops.step import Run, Step


def rope(step: Step) -> Run:
    """As `refengine.ops.rope`."""
    return plain.rope(step, cos=c_cos, sin=c_sin, turn=turn)


def turn(a: F32, b: F32, cos: F32, sin: F32) -> tuple[F32, F32]:
    """`(a cos - b sin, a sin + b cos)`."""
    wide = tuple(x.astype(np.float64) for x in (a, b, cos, sin))
    x, y, c, s = wide
    first = fma(x, c, -as_f64(y * s))
    second = fma(x, s, as_f64(y * c))
    return first.astype(np.float32), second.astype(np.float32)
