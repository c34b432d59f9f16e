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

_BELOW_F32: Final = np.uint64((1 << 29) - 1)  # the bits of an F64 that an F32 has not
_HALF_WAY: Final = np.uint64(1 << 28)


def fma(a: F64 | float, b: F64 | float, c: F64 | float) -> F64:
    """`a * b + c` of F32 values, rounded once to F32.

    The sum is rounded to F64 first. That it is rounded twice then shows only where F64's result is half way between two
    F32: there the part that F64 lost decides.
    """
    product = np.multiply(a, b)
    total: F64 = np.add(product, c)
    half_way = np.flatnonzero((total.view(np.uint64) & _BELOW_F32) == _HALF_WAY)
    if len(half_way):
        _nudge(total, product, np.asarray(c), half_way)
    return as_f64(total)


def _nudge(total: F64, product: F64, c: F64, where: npt.NDArray[np.intp]) -> None:
    """Move sums by the smallest step towards what was lost of them."""
    s, p, q = (np.broadcast_to(x, total.shape).reshape(-1)[where] for x in (total, product, c))
    of_q = s - p
    lost = (p - (s - of_q)) + (q - of_q)
    np.put(total, where, np.where(lost == 0, s, np.nextafter(s, np.where(lost > 0, np.inf, -np.inf))))


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
