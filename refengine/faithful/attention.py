"""Attention as one operation to the bit: what to compute, by which of ggml's two ways.

Source: llama.cpp 0c1e570 ggml/src/ggml-cpu/ops.cpp, ggml_compute_forward_flash_attn_ext_f16.
"""

from typing import Final, cast

import numpy as np

from ggufphys.gguf.ggml_types import GGMLType
from ggufphys.graph.allocating.work import FA_TILE_Q, vec_dot_type
from refengine.arrays import Array
from refengine.batch import Numbers
from refengine.blocks import F32
from refengine.faithful.blocks import SIMPLE, activations, levels, simple
from refengine.faithful.cells import Products, cell_by_cell, merged
from refengine.faithful.floats import FLOATS, dots
from refengine.faithful.heads import Heads
from refengine.faithful.tiles import in_tiles
from refengine.ops import attention as plain
from refengine.ops.attention import LONG_CACHE, slopes
from refengine.ops.step import Run, Step
from refengine.peers.simd import Simd
from refengine.quant.convert import rounded, to_f32

TILED: Final = (GGMLType.F32, GGMLType.F16)


def flash_attn_ext(step: Step) -> Run:
    """Q `(S, H, T, D)`, K and V `(S, K, C, D)`: `(S, T, H, E)`; K of types that are followed, others as plainly."""
    factor, max_bias, softcap, has_sinks = cast("tuple[float, float, float, bool]", step.node.params)
    k_type, v_type = (source.type for source in step.node.src[1:3])
    simd = step.numerics.simd
    assert simd is not None
    if k_type not in (*FLOATS, *SIMPLE):
        return plain.flash_attn_ext(step)
    sources = list(range(3, len(step.src)))
    sinks = step.reader(sources.pop())().reshape(-1) if has_sinks else None
    mask = step.src[sources[0]] if sources else None
    q, k, v, out = *step.src[:3], step.out
    n_stream, n_head, n_tokens, _ = q.shape
    n_cells = k.shape[2]
    slope = slopes(n_head, max_bias)
    of_one_float = k_type is v_type and k_type in TILED
    tiled = of_one_float and n_tokens >= FA_TILE_Q
    splits = of_one_float and n_tokens == n_stream == 1 and n_cells >= LONG_CACHE
    chunk = -(-n_cells // step.numerics.n_threads) if splits else n_cells
    shared = np.arange(n_head) // (n_head // k.shape[1])  # whose keys and values a head has

    def heads(s: int) -> Heads:
        hidden = np.zeros((n_head, n_tokens, n_cells), np.float32)
        if mask is not None:
            hidden += slope * mask[s % len(mask), :, :n_tokens, :n_cells].astype(np.float32)
        return Heads(
            v=to_f32(v[s], v_type)[shared],
            mask=hidden,
            sinks=sinks,
            scale=np.float32(factor) / np.float32(softcap) if softcap else np.float32(factor),
            softcap=np.float32(softcap),
            v_is_f16=v_type is GGMLType.F16,
        )

    def one_stream(s: int) -> F32:
        if tiled:
            return in_tiles(heads(s), q[s], to_f32(k[s], k_type)[shared], simd)
        products = with_keys(q[s], k[s], k_type, shared, simd)
        parts = [cell_by_cell(heads(s), products, simd, first, first + chunk) for first in range(0, n_cells, chunk)]
        return merged(parts) if splits else parts[0].divided()

    def run() -> None:
        for s in range(n_stream):
            out[s] = one_stream(s).swapaxes(0, 1)

    return run


def with_keys(q: F32, k: Array, k_type: GGMLType, shared: Numbers, simd: Simd) -> Products:
    """Queries `(H, T, D)`, rounded as ggml does, with keys `(K, C, D)` in their type, or blocks of it."""
    if k_type in FLOATS:
        keys, queries = to_f32(k, k_type), rounded(q, k_type)

        def of_floats(cells: Numbers) -> F32:
            return np.stack([dots(k_type, keys[i][cells], x, simd) for i, x in zip(shared, queries, strict=True)])

        return of_floats
    blocks = [activations(vec_dot_type(k_type), x) for x in q]

    def of_blocks(cells: Numbers) -> F32:
        return np.stack([simple(levels(k_type, k[i][cells]), x) for i, x in zip(shared, blocks, strict=True)])

    return of_blocks
