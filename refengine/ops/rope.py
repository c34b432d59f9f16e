"""Rotary positions: pairs of a head's elements turned by angles that grow with the position.

Source: llama.cpp 0c1e570 ggml/src/ggml-cpu/ops.cpp, ggml_compute_forward_rope_flt, ggml_rope_cache_init,
ggml_mrope_cache_init, rope_yarn; ggml/src/ggml.c, ggml_rope_yarn_corr_dims.
"""

from collections.abc import Callable, Mapping
from math import pi
from typing import Final, cast

import numpy as np

from ggufphys.graph.rope import Rope
from refengine.arrays import Array
from refengine.blocks import F32
from refengine.ops.step import Operation, Run, Step

Function = Callable[[F32], F32]


def turned(a: F32, b: F32, cos: F32, sin: F32) -> tuple[F32, F32]:
    """A pair turned by an angle."""
    return a * cos - b * sin, a * sin + b * cos


Turn = Callable[[F32, F32, F32, F32], tuple[F32, F32]]


def rope(step: Step, cos: Function = np.cos, sin: Function = np.sin, turn: Turn | None = None) -> Run:
    """Turn `n_dims` elements of each head `(S, T, H, D)`, from `offset` on, or back; leave the others.

    Neighbours are a complex number, unless `turn` says how a pair is turned: a product, which is quicker.
    """
    settings = cast(Rope, step.node.params[0])
    x, positions, out = step.src[0], step.src[1], step.out
    factors = step.reader(2)()[0, 0, 0] if len(step.src) > 2 else None
    n_dims = settings.n_dims
    way = np.float32(-1 if step.node.op == "ROPE_BACK" else 1)
    is_vision = settings.mode == "vision"
    n_pairs = n_dims if is_vision else n_dims // 2
    neighbours = settings.mode == "norm"
    start, middle, end = (settings.offset + n for n in (0, n_pairs, 2 * n_pairs))
    first = slice(start, end, 2) if neighbours else slice(start, middle)
    second = slice(start + 1, end, 2) if neighbours else slice(middle, end)
    all_turned = 2 * n_pairs == x.shape[-1]
    as_numbers = turn is None and neighbours and x.strides[-1] == out.strides[-1] == x.itemsize
    turn_pair = turn or turned

    def run() -> None:
        theta = angles(settings, positions[0, 0, 0], x.shape[1], n_pairs)
        c, s = turns(settings, theta, factors, cos, sin)
        c, s = c[:, np.newaxis], way * s[:, np.newaxis]  # (T, 1, n_pairs)
        if as_numbers:
            numbers, results = (array[..., start:end].view(np.complex64) for array in (x, out))
            np.multiply(numbers, c + 1j * s, results)
        else:
            turned_a, turned_b = turn_pair(x[..., first], x[..., second], c, s)
            out[..., first] = turned_a
            out[..., second] = turned_b
        if not all_turned and x.ctypes.data != out.ctypes.data:
            out[..., :start] = x[..., :start]
            out[..., end:] = x[..., end:]

    return run


def angles(settings: Rope, positions: Array, n_tokens: int, n_pairs: int) -> F32:
    """`(T, n_pairs)`: the position times a power of the base; each power is the product of the one before, in F32."""
    scale = np.float32(np.float32(settings.freq_base) ** np.float32(-2.0 / settings.n_dims))
    if settings.mode in ("norm", "neox"):
        return _powers(positions[:n_tokens], scale, n_pairs)
    lists = positions.reshape(-1, n_tokens)  # one list of positions behind the other
    sections = settings.sections
    chosen, start = _sections(settings, n_pairs)
    theta = np.empty((n_tokens, n_pairs), np.float32)
    for pair in range(n_pairs):
        n_steps = pair - start[pair]
        theta[:, pair] = _powers(lists[chosen[pair]], scale, n_steps + 1)[:, n_steps]
    assert sum(sections) > 0
    return theta


def _powers(positions: Array, scale: np.float32, n: int) -> F32:
    steps = np.full((len(positions), n), scale, np.float32)
    steps[:, 0] = positions
    return np.multiply.accumulate(steps, axis=1)


def _sections(settings: Rope, n_pairs: int) -> tuple[list[int], list[int]]:
    """For each pair which list of positions it takes, and at which pair that list's powers began."""
    sections = (*settings.sections, 0, 0, 0, 0)[:4]
    total = sum(sections)
    ends = (sections[0], sections[0] + sections[1], sum(sections[:3]), total)
    chosen, start = [], []
    for pair in range(n_pairs):
        sector = pair % total
        if settings.mode == "imrope":
            turn = sector % 3
            which = turn if sector < 3 * sections[turn] else 3
        else:
            which = next(i for i, end in enumerate(ends) if sector < end)
        chosen.append(which)
        began = pair - sector + (0, *ends)[which] if settings.mode == "vision" else 0
        start.append(began)
    return chosen, start


def turns(
    settings: Rope, theta: F32, factors: F32 | None, cos: Function = np.cos, sin: Function = np.sin
) -> tuple[F32, F32]:
    """Cosines and sines of the angles, interpolated and enlarged as YaRN asks."""
    n_pairs = theta.shape[1]
    if factors is not None:
        theta = theta / factors[:n_pairs]
    freq_scale, magnitude = np.float32(settings.freq_scale), np.float32(settings.attn_factor)
    turned = freq_scale * theta
    if settings.ext_factor:
        low, high = corrected_dims(settings)
        ramp = (np.arange(n_pairs, dtype=np.float32) - low) / max(np.float32(0.001), high - low)
        mix = (np.float32(1) - np.clip(ramp, 0, 1)).astype(np.float32) * np.float32(settings.ext_factor)
        turned = turned * (np.float32(1) - mix) + theta * mix
        magnitude = magnitude * (np.float32(1) + np.float32(0.1) * np.log(np.float32(1) / freq_scale))
    return cos(turned) * magnitude, sin(turned) * magnitude


def corrected_dims(settings: Rope) -> tuple[np.float32, np.float32]:
    """Between which pairs YaRN goes over from extrapolation to interpolation; anywhere, as in C, where the base is 1.

    Source: llama.cpp 0c1e570 ggml/src/ggml.c, ggml_rope_yarn_corr_dims.
    """

    def dim(n_rotations: float) -> np.float32:
        n_turns = np.float32(settings.n_ctx_orig) / (np.float32(n_rotations) * np.float32(2) * np.float32(pi))
        return np.float32(settings.n_dims) * _log(n_turns) / (np.float32(2) * _log(np.float32(settings.freq_base)))

    with np.errstate(divide="ignore", invalid="ignore"):
        low, high = np.floor(dim(settings.beta_fast)), np.ceil(dim(settings.beta_slow))
    return np.maximum(np.float32(0), low), np.minimum(np.float32(settings.n_dims - 1), high)


def _log(x: np.float32) -> np.float32:
    """C's logf, which is the nearest float nearly everywhere."""
    return np.float32(np.log(np.float64(x)))


OPERATIONS: Final[Mapping[str, Operation]] = {"ROPE": rope, "ROPE_BACK": rope}
