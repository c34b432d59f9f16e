"""Attention as one operation to the bit: what to compute, by which of ggml's two ways.

Source: llama.cpp 0c1e570 ggml/src/ggml-cpu/ops.cpp, ggml_compute_forward_flash_attn_ext_f16.
"""

from typing import Final, cast

import numpy as np

from ggufphys.gguf.ggml_types import GGMLType
from ggufphys.graph.work import FA_TILE_Q
from refengine.convert import rounded, to_f32
from refengine.faithful.cells import cell_by_cell, merged
from refengine.faithful.heads import Heads
from refengine.faithful.tiles import in_tiles
from refengine.ops import attention as plain
from refengine.ops.attention import LONG_CACHE, slopes
from refengine.ops.step import Run, Step

FLOATS: Final = (GGMLType.F16, GGMLType.F32)


def flash_attn_ext(step: Step) -> Run:
    """Q `(S, H, T, D)`, K and V `(S, K, C, D)`: `(S, T, H, E)`; of F16 and F32, others as `refengine.ops` does."""
    factor, max_bias, softcap, has_sinks = cast("tuple[float, float, float, bool]", step.node.params)
    k_type, v_type = (source.type for source in step.node.src[1:3])
    simd = step.numerics.simd
    assert simd is not None
    if k_type is not v_type or k_type not in FLOATS:
        return plain.flash_attn_ext(step)
    sources = list(range(3, len(step.src)))
    sinks = step.reader(sources.pop())().reshape(-1) if has_sinks else None
    mask = step.src[sources[0]] if sources else None
    q, k, v, out = *step.src[:3], step.out
    n_stream, n_head, n_tokens, _ = q.shape
    n_cells = k.shape[2]
    slope = slopes(n_head, max_bias)
    tiled = n_tokens >= FA_TILE_Q
    splits = n_tokens == n_stream == 1 and n_cells >= LONG_CACHE
    chunk = -(-n_cells // step.numerics.n_threads) if splits else n_cells
    shared = np.arange(n_head) // (n_head // k.shape[1])  # whose keys and values a head has

    def heads(s: int) -> Heads:
        hidden = np.zeros((n_head, n_tokens, n_cells), np.float32)
        if mask is not None:
            hidden += slope * mask[s % len(mask), :, :n_tokens, :n_cells].astype(np.float32)
        return Heads(
            q=q[s] if tiled else rounded(q[s], k_type),
            k=to_f32(k[s], k_type)[shared],
            v=to_f32(v[s], v_type)[shared],
            mask=hidden,
            sinks=sinks,
            scale=np.float32(factor) / np.float32(softcap) if softcap else np.float32(factor),
            softcap=np.float32(softcap),
            of_f16=k_type is GGMLType.F16,
        )

    def run() -> None:
        for s in range(n_stream):
            if tiled:
                found = in_tiles(heads(s), simd)
            else:
                parts = [cell_by_cell(heads(s), simd, first, first + chunk) for first in range(0, n_cells, chunk)]
                found = merged(parts) if splits else parts[0].divided()
            out[s] = found.swapaxes(0, 1)

    return run
