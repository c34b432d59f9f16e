"""Softmax, and attention as one operation.

Source: llama.cpp 0c1e570 ggml/src/ggml-cpu/ops.cpp, ggml_compute_forward_soft_max_f32,
ggml_compute_forward_flash_attn_ext_f16_one_chunk, ggml_compute_forward_flash_attn_ext_tiled,
ggml_flash_attn_ext_reduce_partials.
"""

from collections.abc import Mapping
from math import floor, log2
from typing import Final, cast

import numpy as np

from ggufphys.gguf.ggml_types import GGMLType
from ggufphys.graph.allocating.work import FA_TILE_Q, vec_dot_type
from refengine.arrays import Array
from refengine.blocks import F32
from refengine.ops.products import product
from refengine.ops.step import Operation, Run, Step
from refengine.quant.convert import rounded, to_f32
from refengine.quant.minima import WITH_MINIMA, lost_sums, minima

LONG_CACHE: Final = 512  # cells from which on ggml divides one token's attention among its threads
SCORES: Final = 1 << 18  # that are worked on at a time, with all their steps: 1 MiB, which caches hold
TOKENS: Final = 128  # of a prompt that are worked on at a time: their cells end where the last of them stands
PARTS: Final = 1 << 18  # numbers that are kept at a time of what cells add to a sum in F16: 1 MiB


def slopes(n_head: int, max_bias: float) -> F32:
    """ALiBi's slope of each head, `(H, 1, 1)`; 1 without a bias."""
    if max_bias <= 0:
        return np.ones((n_head, 1, 1), np.float32)
    n = 1 << floor(log2(n_head))
    m0, m1 = np.float32(2) ** np.float32(-max_bias / n), np.float32(2) ** np.float32(-max_bias / 2 / n)
    heads = np.arange(n_head)
    powers = np.where(heads < n, m0 ** (heads + 1), m1 ** (2 * (heads - n) + 1))
    return powers.astype(np.float32).reshape(-1, 1, 1)


def soft_max(step: Step) -> Run:
    """softmax(factor * x + slope * mask) of rows `(S, H, T, C)`; sinks take part in the sum alone."""
    factor, max_bias, has_sinks = cast("tuple[float, float, bool]", step.node.params)
    sources = list(range(1, len(step.src)))
    sinks = step.reader(sources.pop())().reshape(-1, 1, 1) if has_sinks else None
    mask = step.src[sources[0]] if sources else None
    x, out = step.src[0], step.out
    slope = slopes(x.shape[1], max_bias)

    def run() -> None:
        scores = x if factor == 1 else np.multiply(x, np.float32(factor))
        if mask is not None:
            bias = mask if mask.dtype == "f4" else mask.astype(np.float32)
            scores = scores + (bias if max_bias <= 0 else slope * bias)
        top = scores.max(axis=-1, keepdims=True)
        if sinks is not None:
            top = np.maximum(top, sinks)
        weights = np.exp(scores - top)
        total = weights.sum(axis=-1, keepdims=True)
        if sinks is not None:
            total += np.exp(sinks - top)
        np.divide(weights, total, out)

    return run


def heads_at_once(n_rows: int, n_tokens: int, n_cells: int) -> int:
    """How many heads of keys and values are worked on at a time, each of which `n_rows` heads of queries look at."""
    return max(1, SCORES // (n_rows * min(TOKENS, n_tokens) * n_cells))


def flash_attn_ext(step: Step) -> Run:
    """Q `(S, H, T, D)`, K and V `(S, K, C, D)`: `(S, T, H, D)`.

    For many tokens at once ggml computes in F32. For fewer it rounds Q to K's type; an F16 V it sums up in F16, cell by
    cell, which is followed where its arithmetic is to be emulated.
    """
    factor, max_bias, softcap, has_sinks = cast("tuple[float, float, float, bool]", step.node.params)
    sources = list(range(3, len(step.src)))
    sinks = step.reader(sources.pop())().reshape(-1, 1, 1) if has_sinks else None
    mask = step.src[sources[0]] if sources else None
    mask_type = step.node.src[sources[0]].type if sources else GGMLType.F16
    q, k, v, out = *step.src[:3], step.out.swapaxes(1, 2)
    k_type, v_type = (source.type for source in step.node.src[1:3])
    slope = slopes(q.shape[1], max_bias)
    scale = np.float32(factor / softcap if softcap else factor)
    n_stream, _, n_tokens, _ = q.shape
    in_tiles = n_tokens >= FA_TILE_Q and k_type is v_type and k_type in (GGMLType.F16, GGMLType.F32)
    in_halves = step.numerics.emulate and v_type is GGMLType.F16 and not in_tiles
    splits = in_halves and k_type is v_type and n_tokens == n_stream == 1 and k.shape[2] >= LONG_CACHE
    chunk = -(-k.shape[2] // step.numerics.n_threads) if splits else k.shape[2]
    shared = q.shape[1] // k.shape[1]  # heads of queries that have a head of keys and values in common

    def attend(tokens: slice, some: slice, keys: F32, values: F32, bias: F32 | None) -> None:
        """Attention of some tokens with some of the heads of keys and values, to the cells that there are."""
        heads, n = slice(some.start * shared, some.stop * shared), keys.shape[2]
        asked = q[:, heads, tokens]
        scores = product(keys, asked if in_tiles else rounded(asked, vec_dot_type(k_type)))
        if k_type in WITH_MINIMA:
            scores += product(minima(k[:, some, :n], k_type), lost_sums(asked))
        scores *= scale
        if softcap:
            np.tanh(scores, scores)
            scores *= np.float32(softcap)
        if bias is not None:
            scores += bias if max_bias <= 0 else slope[heads] * bias
        add_up = _halves_sum if in_halves else _sum
        sums = [add_up(scores[..., i : i + chunk], values[:, :, i : i + chunk]) for i in range(0, n, chunk)]
        out[:, heads, tokens] = _merged(sums, None if sinks is None else sinks[heads])

    def run() -> None:
        stretches = []  # of tokens, and the cells that they see
        for start in range(0, n_tokens, TOKENS):
            tokens = slice(start, min(start + TOKENS, n_tokens))
            n = k.shape[2] if mask is None else _n_seen(mask[:, :, tokens])
            stretches.append((tokens, n, None if mask is None else to_f32(mask[:, :, tokens, :n], mask_type)))
        longest = max(n for _, n, _ in stretches)
        at_once = heads_at_once(n_stream * shared, n_tokens, longest)
        for first in range(0, k.shape[1], at_once):
            some = slice(first, min(first + at_once, k.shape[1]))
            keys, values = to_f32(k[:, some, :longest], k_type), to_f32(v[:, some, :longest], v_type)
            for tokens, n, bias in stretches:
                attend(tokens, some, keys[:, :, :n], values[:, :, :n], bias)

    return run


Sum = tuple[F32, F32, F32]  # the largest score, the sum of weights, the weighted sum: (S, H, T, 1) twice, (S, H, T, D)


def _n_seen(mask: Array) -> int:
    """Cells up to the last that any token sees."""
    hidden = np.array(-np.inf, mask.dtype).view(f"u{mask.itemsize}")  # bits compare faster than halves
    seen = np.flatnonzero((mask.view(hidden.dtype) != hidden).any(axis=(0, 1, 2)))
    return int(seen[-1]) + 1 if len(seen) else 1


def _sum(scores: F32, values: F32) -> Sum:
    """In F32; the scores are used up."""
    top = scores.max(axis=-1, keepdims=True)
    weights = np.subtract(scores, np.where(np.isneginf(top), np.float32(0), top), scores)
    np.exp(weights, weights)
    return top, weights.sum(axis=-1, keepdims=True), product(values.swapaxes(-1, -2), weights)


def _halves_sum(scores: F32, values: F32) -> Sum:
    """Weighted values summed up in F16, cell by cell, the sum scaled down whenever a larger score comes."""
    tops = np.maximum.accumulate(scores, axis=-1)
    before = np.concatenate((np.full_like(tops[..., :1], -np.inf), tops[..., :-1]), axis=-1)
    known = np.where(np.isneginf(tops), np.float32(0), tops)  # nothing seen yet: weights become 0
    weights, shrinks = np.exp(scores - known), np.exp(before - known)
    values = np.repeat(values, scores.shape[1] // values.shape[1], axis=1)
    acc = np.zeros((*scores.shape[:3], values.shape[-1]), np.float16)
    has_new_top: Array = np.greater(scores, before).any(axis=(0, 1, 2))
    step = max(1, PARTS // acc.size)
    for first in range(0, scores.shape[-1], step):
        cells = slice(first, first + step)
        # (C, S, H, T, D): what each cell adds
        parts = np.ascontiguousarray(weights[..., cells].transpose(3, 0, 1, 2))[..., np.newaxis]
        parts = parts * values[:, :, cells].transpose(2, 0, 1, 3)[:, :, :, np.newaxis]
        for c, (part, is_new) in enumerate(zip(parts, has_new_top[cells].tolist(), strict=True), first):
            if is_new:
                np.multiply(acc, shrinks[..., c : c + 1], out=acc, casting="unsafe", dtype=np.float32)
            np.add(acc, part, out=acc, casting="unsafe", dtype=np.float32)
    top = tops[..., -1:]
    total = np.exp(scores - known[..., -1:]).sum(axis=-1, keepdims=True)
    return top, total, acc.astype(np.float32)


def _merged(sums: list[Sum], sinks: F32 | None) -> F32:
    """One result of the sums of all chunks: (S, H, T, D)."""
    if len(sums) == 1 and sinks is None:
        [(_, whole, result)] = sums
        return cast(F32, result / np.where(whole == 0, np.float32(1), whole))
    top = np.maximum.reduce([part[0] for part in sums])
    if sinks is not None:
        top = np.maximum(top, sinks)
    known = np.where(np.isneginf(top), np.float32(0), top)
    shrinks = [np.exp(part[0] - known) for part in sums]
    total = sum((part[1] * shrink for part, shrink in zip(sums, shrinks, strict=True)), np.float32(0))
    if sinks is not None:
        total = total + np.exp(sinks - known)
    acc = sum((part[2] * shrink for part, shrink in zip(sums, shrinks, strict=True)), np.float32(0))
    return cast(F32, acc / np.where(total == 0, np.float32(1), total))


OPERATIONS: Final[Mapping[str, Operation]] = {"SOFT_MAX": soft_max, "FLASH_ATTN_EXT": flash_attn_ext}
