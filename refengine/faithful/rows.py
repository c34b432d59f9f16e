"""Norms, softmax and activation functions to the bit.

Source: llama.cpp 0c1e570 ggml/src/ggml-cpu/ops.cpp, ggml_compute_forward_rms_norm_f32, _norm_f32,
_soft_max_f32, _swiglu_f32, _swiglu_oai_f32;
ggml/src/ggml-cpu/vec.cpp, ggml_vec_soft_max_f32, ggml_vec_cvar_f32, ggml_vec_swiglu_f32,
ggml_vec_silu_f32; ggml/src/ggml-cpu/unary-ops.cpp.
"""

from collections.abc import Callable
from math import sqrt
from typing import cast

import numpy as np

from refengine.arrays import Array
from refengine.blocks import F32
from refengine.faithful.arithmetic import F64, halved, in_order
from refengine.faithful.functions import c_erf, c_exp, c_log, c_tanh, vector_exp, vector_silu
from refengine.ops import elementwise
from refengine.ops.attention import slopes
from refengine.ops.step import Run, Step
from refengine.peers.simd import Simd


def rms_norm(step: Step) -> Run:
    """X / sqrt(mean(x^2) + eps): squares in F32, summed up one after the other in F64."""
    eps = np.float32(step.node.params[0])  # type: ignore[arg-type]
    x, out = step.src[0], step.out

    def run() -> None:
        total = in_order(np.square(x).astype(np.float64))
        mean = (total / x.shape[-1]).astype(np.float32)[..., np.newaxis]
        np.multiply(x, np.float32(1) / np.sqrt(mean + eps), out)

    return run


def l2_norm(step: Step) -> Run:
    """X / max(|x|, eps), summed up alike."""
    eps = np.float32(step.node.params[0])  # type: ignore[arg-type]
    x, out = step.src[0], step.out

    def run() -> None:
        total = in_order(np.square(x).astype(np.float64)).astype(np.float32)[..., np.newaxis]
        np.multiply(x, np.float32(1) / np.maximum(np.sqrt(total), eps), out)

    return run


def sum_rows(step: Step) -> Run:
    """The sum of each row, from the first element to the last in F64."""
    x, out = step.src[0], step.out

    def run() -> None:
        out[..., 0] = in_order(x.astype(np.float64))

    return run


def mean(step: Step) -> Run:
    """The mean of each row: the sum as F32, divided."""
    x, out = step.src[0], step.out

    def run() -> None:
        out[..., 0] = in_order(x.astype(np.float64)).astype(np.float32) / np.float32(x.shape[-1])

    return run


def norm(step: Step) -> Run:
    """(x - mean) / sqrt(variance + eps): squares in F32, whole vectors summed up in F32, these sums in F64."""
    eps = np.float32(step.node.params[0])  # type: ignore[arg-type]
    simd = step.numerics.simd
    assert simd is not None
    x, out = step.src[0], step.out
    n = x.shape[-1]

    def run() -> None:
        mean = in_order(x.astype(np.float64)).astype(np.float32) / np.float32(n)
        centred = x - mean[..., np.newaxis]
        variance = (_sum_of_vectors(np.square(centred), simd) / n).astype(np.float32)[..., np.newaxis]
        np.multiply(centred, np.float32(1) / np.sqrt(variance + eps), out)

    return run


def soft_max(step: Step) -> Run:
    """softmax(factor * x + slope * mask) of rows `(S, H, T, C)`; sinks take part in the sum alone."""
    factor, max_bias, has_sinks = cast("tuple[float, float, bool]", step.node.params)
    simd = step.numerics.simd
    assert simd is not None
    sources = list(range(1, len(step.src)))
    sinks = step.reader(sources.pop())().reshape(-1, 1, 1) if has_sinks else None
    mask = step.src[sources[0]] if sources else None
    x, out = step.src[0], step.out
    slope = slopes(x.shape[1], max_bias)

    def run() -> None:
        scores = x * np.float32(factor)
        if mask is not None:
            scores += mask.astype(np.float32) if max_bias <= 0 else slope * mask.astype(np.float32)
        top = scores.max(axis=-1, keepdims=True)
        if sinks is not None:
            top = np.maximum(top, sinks)
        weights, total = weights_and_sum(scores, top, simd)
        if sinks is not None:
            total += c_exp(sinks - top)[..., 0]
        np.multiply(weights, (1 / total).astype(np.float32)[..., np.newaxis], out)

    return run


def weights_and_sum(scores: F32, top: F32, simd: Simd) -> tuple[F32, F64]:
    """e^(score - top), `(..., n)`, and the sum, `(...)`: of each vector in F32, of these in F64."""
    n_whole = scores.shape[-1] // simd.lanes * simd.lanes
    below = scores - top
    weights = np.concatenate((vector_exp(below[..., :n_whole], simd), c_exp(below[..., n_whole:])), axis=-1)
    return weights, _sum_of_vectors(weights, simd)


def _sum_of_vectors(values: F32, simd: Simd) -> F64:
    """The sum over the last axis: of each vector in F32, of these and of what is left behind them in F64."""
    n_whole = values.shape[-1] // simd.lanes * simd.lanes
    vectors = halved(values[..., :n_whole].reshape(*values.shape[:-1], -1, simd.lanes))
    return in_order(np.concatenate((vectors, values[..., n_whole:]), axis=-1).astype(np.float64))


def unary(step: Step) -> Run:
    """Activation functions with an exponential; others as `refengine.ops` has them."""
    simd = step.numerics.simd
    assert simd is not None
    functions: dict[object, Callable[[F32], F32]] = {
        "silu": lambda x: silu(x, simd),
        "sigmoid": lambda x: np.float32(1) / (np.float32(1) + c_exp(-x)),
        "softplus": softplus,
        "exp": c_exp,
        "gelu_erf": lambda x: np.float32(0.5) * x * (np.float32(1) + c_erf(x * np.float32(sqrt(0.5)))),
        "tanh": c_tanh,
    }
    function = functions.get(step.node.params[0])
    return elementwise.unary(step) if function is None else elementwise.unary_of(function)(step)


def softplus(x: F32) -> F32:
    """log(1 + e^x), X itself beyond 20."""
    return np.where(x > 20, x, c_log(np.float32(1) + c_exp(np.minimum(x, np.float32(20)))))


def glu(step: Step) -> Run:
    """silu(gate) * up, and gpt-oss's kind of it; others as `refengine.ops` has them."""
    simd = step.numerics.simd
    assert simd is not None
    kind, *numbers = step.node.params
    if kind not in ("swiglu", "swiglu_oai"):
        return elementwise.glu(step)
    gate, up, out = step.src[0], step.src[-1], step.out
    if len(step.src) == 1:
        gate, up = elementwise.halves(gate)
    if kind == "swiglu":
        return lambda: np.multiply(silu(gate, simd), up, out)
    alpha, limit = (np.float32(number) for number in numbers)  # type: ignore[arg-type]

    def run() -> None:
        x = np.minimum(gate, limit)
        bent = x / (np.float32(1) + c_exp(alpha * -x))
        np.multiply(bent, np.clip(up, -limit, limit) + np.float32(1), out)

    return run


def silu(x: Array, simd: Simd) -> F32:
    """X / (1 + e^-x) of rows: whole vectors, then what is left one by one."""
    n_whole = x.shape[-1] // simd.lanes * simd.lanes
    rest = x[..., n_whole:]
    return np.concatenate((vector_silu(x[..., :n_whole], simd), rest / (np.float32(1) + c_exp(-rest))), axis=-1)
