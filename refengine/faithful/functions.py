"""Exponentials and angles to the bit: ggml's own polynomial where it computes vectors, the C library's elsewhere.

Source: llama.cpp 0c1e570 ggml/src/ggml-cpu/vec.h, ggml_v_expf, ggml_v_silu.
"""

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Final

import numpy as np

from refengine.blocks import F32
from refengine.faithful.arithmetic import F64, as_f64, fma
from refengine.peers.simd import Simd

_TO_INTEGER: Final = float.fromhex("0x1.8p23")  # adding it leaves no bits behind the point
_LOG2_E: Final = float.fromhex("0x1.715476p+0")
_LN2_HIGH: Final = float.fromhex("0x1.62e4p-1")
_LN2_LOW: Final = float.fromhex("0x1.7f7d1cp-20")
_SERIES: Final = tuple(
    float.fromhex(text)
    for text in ("0x1.0e4020p-7", "0x1.573e2ep-5", "0x1.555e66p-3", "0x1.fffdb6p-2", "0x1.ffffecp-1")
)


def vector_exp(x: F32, simd: Simd) -> F32:
    """e^x as ggml's vectors compute it: 2^n times a polynomial of what is left, n a whole number.

    With vectors of 16 the polynomial begins with 1, with those of 8 that is added in the last step.
    """
    c5, c4, c3, c2, c1 = _SERIES
    wide = as_f64(np.where(np.isfinite(x), x, 0))
    z = fma(wide, _LOG2_E, _TO_INTEGER)
    n = as_f64(z - _TO_INTEGER)
    b = fma(-n, _LN2_LOW, fma(-n, _LN2_HIGH, wide))
    u = as_f64(b * b)
    upper = fma(fma(c5, b, c4), u, fma(c3, b, c2))
    if simd.lanes == 16:
        j = fma(upper, u, fma(c1, b, 1))
        found = _as_f32(np.ldexp(j, n.astype(np.int32)))
    else:
        j = fma(upper, u, as_f64(c1 * b))
        found = _scaled(j, n)
    found = np.where(np.abs(n) > 192, np.where(n <= 0, np.float32(0), np.float32(np.inf)), found)
    exp: F32 = np.where(np.isfinite(x), found, np.where(x > 0, x, np.where(np.isnan(x), x, np.float32(0))))
    return exp


def _scaled(j: F64, n: F64) -> F32:
    """`k * j + k`, k = 2^n; far out in two steps, the first one rounded."""
    power = np.ldexp(1.0, np.clip(n, -126, 126).astype(np.int32))
    rest = np.ldexp(1.0, (n - np.clip(n, -126, 126)).astype(np.int32))
    return _as_f32(fma(power, j, power) * rest)


def _as_f32(values: F64) -> F32:
    with np.errstate(over="ignore", under="ignore"):
        return values.astype(np.float32)


def vector_silu(x: F32, simd: Simd) -> F32:
    """X / (1 + e^-x)."""
    return x / (np.float32(1) + vector_exp(np.float32(0) - x, simd))


def c_exp(x: F32) -> F32:
    """e^x by the C library, one by one: F32 of any shape."""
    return _each("expf", x)


def c_cos(x: F32) -> F32:
    """Cosines by the C library."""
    return _each("cosf", x)


def c_sin(x: F32) -> F32:
    """Sines by the C library."""
    return _each("sinf", x)


def c_erf(x: F32) -> F32:
    """The error function by the C library."""
    return _each("erff", x)


def c_log(x: F32) -> F32:
    """Natural logarithms by the C library."""
    return _each("logf", x)


def c_tanh(x: F32) -> F32:
    """Hyperbolic tangents by the C library."""
    return _each("tanhf", x)


def _each(name: str, x: F32) -> F32:
    different, where = np.unique(x, return_inverse=True)
    function = _c_function(name)
    found = np.fromiter(map(function, different.tolist()), np.float32, len(different))
    return found[where].reshape(x.shape)


@cache
def _c_function(name: str) -> Callable[[float], float]:
    function = getattr(ctypes.CDLL(None), name)
    function.argtypes, function.restype = [ctypes.c_float], ctypes.c_float
    return function  # type: ignore[no-any-return]  # ctypes makes functions of type Any
