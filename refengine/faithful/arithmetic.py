"""Which bits come of multiplying, adding and reducing floats as a processor's vectors do?

Numbers of F32 are kept as F64 between operations, since a fused multiply-add rounds once: a product of two F32 is exact
in F64.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from refengine.blocks import F32

F64 = npt.NDArray[np.float64]

WORK: Final = 1 << 16  # sums that are kept at a time: what is computed from them fits a core's cache

_TO_THE_TOP: Final = np.uint64(64 - 29)  # where the 29 bits of an F64 that an F32 has not are moved
_HALF_WAY: Final = np.uint64(1 << 63)  # the first of them alone


def fma(a: F64 | float, b: F64 | float, c: F64 | float) -> F64:
    """`a * b + c` of F32 values, rounded once to F32.

    The sum is rounded to F64 first. That it is rounded twice then shows only where F64's result is half way between two
    F32: there the part that F64 lost decides.

    One array holds the sum, its lowest bits and the result, one after the other: what is kept at a time has to fit a
    core's cache.
    """
    product = np.multiply(a, b)
    total: F64 = np.asarray(np.add(product, c))
    rounded = total.astype(np.float32)
    bits = total.view(np.uint64)
    np.left_shift(bits, _TO_THE_TOP, out=bits)
    half_way = np.flatnonzero(bits == _HALF_WAY)
    total[...] = rounded
    if len(half_way):
        _decide(total, product, np.asarray(c), half_way)
    return total


def _decide(total: F64, product: F64, c: F64, where: npt.NDArray[np.intp]) -> None:
    """Round sums again that are half way, moved by the smallest step towards what was lost of them before."""
    p, q = (np.broadcast_to(x, total.shape).reshape(-1)[where] for x in (product, c))
    s = p + q
    of_q = s - p
    lost = (p - (s - of_q)) + (q - of_q)
    if lost.any():
        np.put(total, where, as_f64(np.where(lost == 0, s, np.nextafter(s, np.where(lost > 0, np.inf, -np.inf)))))


def as_f64(values: npt.NDArray[Any]) -> F64:
    """Rounded to F32, as F64."""
    return values.astype(np.float32).astype(np.float64)


def halved(lanes: F32) -> F32:
    """The sum over the last axis, the upper half added to the lower until one is left: `(..., 2^n)` gives `(...)`.

    Source: _mm512_reduce_add_ps; llama.cpp 0c1e570 ggml/src/ggml-cpu/llamafile/sgemm.cpp, hsum.
    """
    while lanes.shape[-1] > 1:
        half = lanes.shape[-1] // 2
        lanes = lanes[..., :half] + lanes[..., half:]
    return lanes[..., 0]


def in_order(values: F64) -> F64:
    """The sum over the last axis, from the first to the last: `(..., n)` gives `(...)`."""
    total: F64 = np.add.accumulate(values, axis=-1)[..., -1]
    return total
