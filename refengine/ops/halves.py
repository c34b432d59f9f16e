"""Activation functions that ggml looks up: a table has the result, a half, for every half that an argument rounds to.

The tables here are ggml's to the bit: computed in F32 step by step, exponentials as they round from F64.
Source: llama.cpp 0c1e570 ggml/src/ggml-cpu/vec.h, ggml_gelu_f32, ggml_gelu_quick_f32, ggml_vec_gelu_f32,
ggml_vec_gelu_quick_f32; ggml/src/ggml-cpu/ggml-cpu.c, ggml_cpu_init.
"""

from functools import cache

import numpy as np

from refengine.blocks import F32


def _arguments() -> F32:
    return np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)


def _halved(values: F32) -> F32:
    return values.astype(np.float16).astype(np.float32)


@cache
def gelu_table() -> F32:
    """GELU by a hyperbolic tangent, of the half of each bit pattern; the polynomial has one fused multiply-add."""
    x = _arguments()
    with np.errstate(all="ignore"):
        fused = (np.float32(0.044715) * x).astype(np.float64) * x.astype(np.float64) + 1
        inner = np.float32(0.79788456080286535588) * x * fused.astype(np.float32)
        bent = np.tanh(inner.astype(np.float64)).astype(np.float32)
        return _halved(np.float32(0.5) * x * (np.float32(1) + bent))


@cache
def gelu_quick_table() -> F32:
    """X * sigmoid(1.702 x), of the half of each bit pattern."""
    x = _arguments()
    with np.errstate(all="ignore"):
        power = np.exp((np.float32(-1.702) * x).astype(np.float64)).astype(np.float32)
        return _halved(x * (np.float32(1) / (np.float32(1) + power)))


def _looked_up(table: F32, x: F32) -> F32:
    with np.errstate(over="ignore"):
        return table[x.astype(np.float16).view(np.uint16)]


def gelu(x: F32) -> F32:
    """The usual approximation of GELU; beyond +-10 it is 0 or X."""
    return np.where(x <= -10, np.float32(0), np.where(x >= 10, x, _looked_up(gelu_table(), x)))


def gelu_quick(x: F32) -> F32:
    """A cheaper approximation."""
    return _looked_up(gelu_quick_table(), x)
