"""How do F32 become Q4_K: which scales and minima fit 32 weights best?

The reference search, 22 candidates for each sub-block, for all sub-blocks at once. Shapes: `(32, m)`, a column a
sub-block, so that a sum runs over rows, one after the other as in C: F32 sums depend on their order.
Source: llama.cpp 0c1e570 ggml/src/ggml-quants.c, quantize_row_q4_K_ref, make_qkx2_quants.
"""

from typing import Final

import numpy as np

from refengine.blocks import F32, U8, Blocks
from refengine.quant.simple import I32, nearest_int

N_MAX: Final = 15  # the largest q
N_STEPS: Final = 20


def q4_k(x: F32, blocks: Blocks) -> None:
    """`w = d*sc*q - dmin*m`: scales and minima by search, rounded to 6 bits of the largest; then q anew for these."""
    columns = np.ascontiguousarray(x.reshape(-1, 32).T)  # (32, m)
    scales, minima, found = fit(columns, magnitudes(columns))
    d, sc = six_bits(scales.reshape(-1, 8))
    dmin, m = six_bits(minima.reshape(-1, 8))
    blocks["dm"][:, 0], blocks["dm"][:, 1] = d, dmin
    blocks["scales"] = packed_scales(sc, m)
    stored = blocks["dm"].astype(np.float32)
    step = (stored[:, :1] * sc).reshape(-1)
    shift = (stored[:, 1:] * m).reshape(-1)
    anew = np.clip(nearest_int((columns + shift) / step), 0, N_MAX)
    q = np.where(step != 0, anew, found).astype(np.uint8).T.reshape(-1, 4, 2, 32)
    blocks["qs"] = (q[:, :, 0] | q[:, :, 1] << 4).reshape(-1, 128)


def magnitudes(x: F32) -> F32:
    """What an error in each weight counts: its magnitude and the root mean square of the sub-block."""
    weights: F32 = np.sqrt(total(x * x) / np.float32(32)) + np.abs(x)
    return weights


def fit(x: F32, weights: F32) -> tuple[F32, F32, I32]:
    """The scale, `(m,)`, the minimum's negative, `(m,)`, and q, `(32, m)`, of least weighted squared error.

    The first candidate spans the sub-block. Each later one takes its q from a slightly different span, which starts
    from the best minimum so far, and its scale and minimum from a weighted regression of x on q. No minimum is above 0.
    """
    sum_w, sum_x = total(weights), total(weights * x)
    highest = x.max(axis=0)
    best_minimum: F32 = np.minimum(x.min(axis=0), np.float32(0))
    flat = highest == best_minimum  # nothing to divide by: all of q is 0
    flat_minimum = best_minimum[flat]

    def candidate(levels: np.float32) -> I32:
        return np.clip(nearest_int(levels / (highest - best_minimum) * (x - best_minimum)), 0, N_MAX)

    def error(scale: F32, minimum: F32, q: F32) -> F32:
        difference = scale * q + minimum - x
        return total(weights * (difference * difference))

    best_scale: F32 = np.float32(1) / (np.float32(N_MAX) / (highest - best_minimum))
    best_q = candidate(np.float32(N_MAX))
    best_error = error(best_scale, best_minimum, best_q.astype(np.float32))
    for step in range(N_STEPS + 1):
        q_int = candidate(np.float32(-1) + np.float32(0.1) * np.float32(step) + np.float32(N_MAX))
        q = q_int.astype(np.float32)
        weighted = weights * q
        sum_q, sum_q2, sum_xq = total(weighted), total(weighted * q), total(weighted * x)
        determinant = sum_w * sum_q2 - sum_q * sum_q
        scale: F32 = np.divide(sum_w * sum_xq - sum_x * sum_q, determinant)
        minimum: F32 = np.divide(sum_q2 * sum_x - sum_q * sum_xq, determinant)
        above = minimum > 0
        scale = np.where(above, sum_xq / sum_q2, scale)
        minimum = np.where(above, np.float32(0), minimum)
        found = error(scale, minimum, q)
        better = (determinant > 0) & (found < best_error)
        best_scale, best_minimum = np.where(better, scale, best_scale), np.where(better, minimum, best_minimum)
        best_q, best_error = np.where(better, q_int, best_q), np.where(better, found, best_error)
    best_scale[flat], best_minimum[flat], best_q[:, flat] = 0, flat_minimum, 0
    return best_scale, -best_minimum, best_q


def total(rows: F32) -> F32:
    """The sum of the rows, from first to last: numpy's own sum may add in another order."""
    added: F32 = rows[0].copy()
    for row in rows[1:]:
        added += row
    return added


def six_bits(values: F32) -> tuple[F32, U8]:
    """For `(n, 8)` scales or minima: the unit of the super-block, `(n,)`, and the multiples of it, 63 at most."""
    highest: F32 = values.max(axis=1)
    largest: F32 = np.where(highest > 0, highest, np.float32(0))  # not -0
    per_value = np.where(largest > 0, np.float32(63) / largest, np.float32(0))
    multiples = nearest_int(per_value[:, np.newaxis] * values).astype(np.uint8)
    return np.divide(largest, np.float32(63)), np.minimum(multiples, 63)


def packed_scales(sc: U8, m: U8) -> U8:
    """8 scales and 8 minima of 6 bits as 12 bytes; the picture is in dequant_k.scale_min_k4."""
    scales = np.empty((len(sc), 12), np.uint8)
    scales[:, 0:4] = sc[:, :4] | sc[:, 4:] >> 4 << 6
    scales[:, 4:8] = m[:, :4] | m[:, 4:] >> 4 << 6
    scales[:, 8:] = sc[:, 4:] & 15 | (m[:, 4:] & 15) << 4
    return scales
