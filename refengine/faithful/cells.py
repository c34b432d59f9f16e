"""Attention of few tokens: cell by cell, and a weighted sum of halves is kept in halves.

Source: llama.cpp 0c1e570 ggml/src/ggml-cpu/ops.cpp, ggml_compute_forward_flash_attn_ext_f16_one_chunk,
ggml_flash_attn_ext_reduce_partials; ggml/src/ggml-cpu/vec.h, ggml_vec_mad_f16, ggml_vec_scale_f16.
"""

from collections.abc import Callable, Sequence

import numpy as np

from refengine.batch import Numbers
from refengine.blocks import F32
from refengine.faithful.arithmetic import F64, as_f64, fma
from refengine.faithful.functions import c_exp
from refengine.faithful.heads import Heads, Sums
from refengine.peers.simd import Simd

Products = Callable[[Numbers], F32]
"""Of all queries with the keys of some cells: `(H, T, C)`."""


def cell_by_cell(heads: Heads, products: Products, simd: Simd, first: int, end: int) -> Sums:
    """All queries against the cells from `first` to `end`, those that none sees left out."""
    cells = first + np.flatnonzero((~np.isneginf(heads.mask[..., first:end])).any(axis=(0, 1)))
    scores = heads.scaled(products(cells)) + heads.mask[..., cells]  # (H, T, C)
    n_head, n_tokens, _ = scores.shape
    start = np.full((n_head, n_tokens, 1), -np.inf, np.float32)
    tops = np.maximum.accumulate(np.concatenate((start, scores), axis=-1), axis=-1)
    is_new = scores > tops[..., :-1]
    hidden = np.isneginf(scores)
    factors = c_exp(np.where(hidden, 0, np.where(is_new, tops[..., :-1] - scores, scores - tops[..., 1:])))
    shrinks = np.where(is_new, factors, 1).astype(np.float64)
    weights = np.where(hidden, 0, np.where(is_new, 1, factors)).astype(np.float64)
    values = heads.v[:, cells].astype(np.float64)
    total = np.zeros((n_head, n_tokens))
    acc = np.zeros((n_head, n_tokens, values.shape[2]))
    for c in range(len(cells)):
        shrink, weight = shrinks[..., c], weights[..., c]
        if is_new[..., c].any():
            acc = _scaled(acc, shrink, heads, simd)
        acc = _added(acc, values[:, np.newaxis, c], weight, heads, simd)
        total = fma(total, shrink, weight)
    sums = Sums(top=tops[..., -1], total=total, acc=acc)
    return sums if first else sums.with_sinks(heads.sinks)


def _scaled(acc: F64, factor: F64, heads: Heads, simd: Simd) -> F64:
    factor = factor[..., np.newaxis]
    found = as_f64(acc * factor)
    if heads.v_is_f16:
        n = _n_in_halves(acc, simd)
        found = _as_f16(found)
        found[..., :n] = _as_f16(acc[..., :n] * _as_f16(factor))
    return found


def _added(acc: F64, values: F64, weight: F64, heads: Heads, simd: Simd) -> F64:
    """`acc + values * weight`, rounded to F32, of halves then to F16; or at once, where ggml adds in halves."""
    weight = weight[..., np.newaxis]
    found = fma(values, weight, acc)
    if heads.v_is_f16:
        n = _n_in_halves(acc, simd)
        found = _as_f16(found)
        found[..., :n] = _as_f16(values[..., :n] * _as_f16(weight) + acc[..., :n])
    return found


def _as_f16(values: F64) -> F64:
    return values.astype(np.float16).astype(np.float64)


def _n_in_halves(acc: F64, simd: Simd) -> int:
    """How many elements AVX512-FP16 code adds without going through F32: whole steps of four vectors of 32."""
    return acc.shape[-1] // 128 * 128 if simd.half_sums else 0


def merged(parts: Sequence[Sums]) -> F32:
    """One result of what each of ggml's threads found in its part of the cells: `(H, T, E)`."""
    top = np.full_like(parts[0].top, -np.inf)
    total, acc = np.zeros_like(parts[0].total), np.zeros_like(parts[0].acc)
    for part in parts:
        counts = part.total != 0
        new_top = np.where(counts, np.maximum(top, part.top), top)
        old = np.where(counts, c_exp(np.where(counts, top - new_top, 0)), 1).astype(np.float64)
        new = np.where(counts, c_exp(np.where(counts, part.top - new_top, 0)), 0).astype(np.float64)
        acc = fma(acc, old[..., np.newaxis], as_f64(part.acc * new[..., np.newaxis]))
        total = fma(total, old, as_f64(part.total * new))
        top = new_top
    return Sums(top=top, total=total, acc=acc).divided()
