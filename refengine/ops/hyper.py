"""Hyper-connections: several streams in place of one residual, read and written as mixtures.

Legend: N streams, T tokens, E elements. Source: llama.cpp 0c1e570 ggml/src/ggml-cpu/ops.cpp,
ggml_compute_forward_dsv4_hc_pre_f32, ggml_compute_forward_dsv4_hc_comb_f32, ggml_compute_forward_dsv4_hc_post_f32.
"""

from collections.abc import Mapping
from typing import Final, cast

import numpy as np

from refengine.blocks import F32
from refengine.ops.elementwise import sigmoid
from refengine.ops.step import Operation, Run, Step


def hc_pre(step: Step) -> Run:
    """Streams `(T, N, E)`, each times its weight `(T, N)`, or a gate for each element, added: `(T, E)`."""
    factor, gated = cast("tuple[float, bool]", step.node.params)
    x, weights, out = step.reader(0), step.reader(1), step.out[0, 0]

    def run() -> None:
        if gated:
            mixed = np.einsum("tne,tne->te", x()[0], sigmoid(weights()[0]))
        else:
            mixed = np.einsum("tne,tn->te", x()[0], weights()[0, 0])
        np.multiply(mixed, np.float32(factor), out)

    return run


def hc_comb(step: Step) -> Run:
    """How much of each stream goes to each, `(T, from, to)`: a softmax, then rows and columns made to add up to 1."""
    eps, n_iter = cast("tuple[float, int]", step.node.params)
    mixes, scale, base, out = step.reader(0), step.reader(1), step.reader(2), step.out[0]
    n = out.shape[-1]

    def normed(comb: F32, axis: int) -> F32:
        divided: F32 = comb / (comb.sum(axis=axis, keepdims=True) + np.float32(eps))
        return divided

    def run() -> None:
        scores = mixes()[0, 0, :, 2 * n :] * scale()[0, 0, 0, 2] + base()[0, 0, 0, 2 * n :]
        comb = scores.reshape(-1, n, n)
        comb = np.exp(comb - comb.max(axis=-1, keepdims=True))
        comb = comb / comb.sum(axis=-1, keepdims=True) + np.float32(eps)
        comb = normed(comb, 1)
        for _ in range(1, n_iter):
            comb = normed(normed(comb, 2), 1)
        out[...] = comb

    return run


def hc_post(step: Step) -> Run:
    """X `(T, E)` times each stream's weight `(T, N)`, plus the streams, mixed `(T, from, to)` or as they are."""
    x, streams, post, out = step.reader(0), step.reader(1), step.reader(2), step.out[0]
    comb = step.reader(3) if len(step.src) > 3 else None

    def run() -> None:
        old = streams()[0]
        mixed = old if comb is None else np.einsum("tie,tij->tje", old, comb()[0])
        np.add(x()[0, 0][:, np.newaxis] * post()[0, 0][:, :, np.newaxis], mixed, out)

    return run


OPERATIONS: Final[Mapping[str, Operation]] = {
    "DSV4_HC_PRE": hc_pre,
    "DSV4_HC_COMB": hc_comb,
    "DSV4_HC_POST": hc_post,
}
