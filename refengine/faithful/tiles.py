"""Attention of many tokens: tiles of 64 cells, sums in F32 from the first element to the last.

Source: llama.cpp 0c1e570 ggml/src/ggml-cpu/ops.cpp, ggml_compute_forward_flash_attn_ext_tiled;
ggml/src/ggml-cpu/simd-gemm.h, simd_gemm.
"""

import numpy as np

from ggufphys.graph.allocating.work import FA_TILE_KV
from refengine.blocks import F32
from refengine.faithful.arithmetic import F64, as_f64, fma
from refengine.faithful.functions import c_exp
from refengine.faithful.heads import Heads, Sums
from refengine.faithful.rows import weights_and_sum
from refengine.peers.simd import Simd


def in_tiles(heads: Heads, q: F32, k: F32, simd: Simd) -> F32:
    """All queries `(H, T, D)` against keys `(H, C, D)`, 64 cells at a time: `(H, T, E)`."""
    n_head, n_tokens, n_cells = heads.mask.shape
    top = np.full((n_head, n_tokens), -np.inf, np.float32)
    total = np.zeros((n_head, n_tokens))
    acc = np.zeros((n_head, n_tokens, heads.v.shape[2]))
    queries = q.astype(np.float64)
    for first in range(0, n_cells, FA_TILE_KV):
        cells = slice(first, first + FA_TILE_KV)
        hidden = heads.mask[..., cells]
        if np.isneginf(hidden).all():
            continue
        products = _in_order(queries, k[:, cells].astype(np.float64))
        scores = _padded(heads.scaled(products) + hidden)
        tile_top = scores.max(axis=-1)
        seen = ~np.isneginf(tile_top)
        new_top = np.maximum(top, tile_top)
        grows = new_top > top
        shrink = np.where(grows, c_exp(np.where(grows, top - new_top, np.float32(0))), np.float32(1))
        known = np.where(np.isneginf(new_top), np.float32(0), new_top)[..., np.newaxis]
        weights, added = weights_and_sum(scores, known, simd)
        weights[~seen], added[~seen] = 0, 0
        total = as_f64(as_f64(total * shrink) + added)
        acc = as_f64(acc * shrink[..., np.newaxis])
        top = new_top
        wide, values = weights.astype(np.float64), heads.v[:, cells].astype(np.float64)
        for c in range(values.shape[1]):
            acc = fma(wide[..., c : c + 1], values[:, c : c + 1], acc)
    return Sums(top=top, total=total, acc=acc).with_sinks(heads.sinks).divided()


def _in_order(queries: F64, keys: F64) -> F32:
    """`(H, T, D)` with `(H, C, D)`: `(H, T, C)`."""
    acc = np.zeros((*queries.shape[:2], keys.shape[1]))
    for d in range(queries.shape[2]):
        acc = fma(queries[..., d : d + 1], keys[:, np.newaxis, :, d], acc)
    return acc.astype(np.float32)


def _padded(scores: F32) -> F32:
    """A whole tile: what is not there is not seen."""
    missing = FA_TILE_KV - scores.shape[-1]
    return np.pad(scores, ((0, 0), (0, 0), (0, missing)), constant_values=-np.inf) if missing else scores
