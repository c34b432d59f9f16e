"""Attention to chosen positions: how an indexer scores them, and which are the best.

Source: llama.cpp 0c1e570 ggml/src/ggml-cpu/ops.cpp, ggml_compute_forward_lightning_indexer,
ggml_compute_forward_top_k_f32, ggml_compute_forward_pool_2d.
"""

from collections.abc import Mapping
from typing import Final, cast

import numpy as np

from refengine.ops.step import Operation, Run, Step


def lightning_indexer(step: Step) -> Run:
    """Sum over heads of weights * relu(q k) + mask, of Q `(S, T, H, D)`, K `(S, C, 1, D)`: `(S, 1, T, C)`."""
    q, k, weights, mask, out = step.reader(0), step.reader(1), step.reader(2), step.reader(3), step.out

    def run() -> None:
        products = np.einsum("sthd,scd->stch", q(), k()[:, :, 0], optimize=True)
        scores = np.einsum("stch,sth->stc", np.maximum(products, 0), weights()[:, 0], optimize=True)
        np.add(scores[:, np.newaxis], mask(), out)

    return run


def top_k(step: Step) -> Run:
    """The numbers of the largest elements of each row. ggml exchanges the first two: no order is promised."""
    x, out = step.src[0], step.out
    n = out.shape[-1]

    def run() -> None:
        best = np.argsort(-x, axis=-1, kind="stable")[..., :n]
        best[..., :2] = best[..., 1::-1]
        out[...] = best

    return run


def pool_max(step: Step) -> Run:
    """The largest of so many elements of a row that follow each other."""
    kind, size = cast("tuple[str, int]", step.node.params)
    assert kind == "max", kind
    x, out = step.src[0], step.out
    return lambda: np.max(x.reshape(*out.shape, size), axis=-1, out=out)


OPERATIONS: Final[Mapping[str, Operation]] = {
    "LIGHTNING_INDEXER": lightning_indexer,
    "TOP_K": top_k,
    "POOL_2D": pool_max,
}
