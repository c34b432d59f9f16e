"""Attention to chosen positions: how an indexer scores them, and which are the best.

Source: llama.cpp 0c1e570 ggml/src/ggml-cpu/ops.cpp, ggml_compute_forward_lightning_indexer,
ggml_compute_forward_top_k_f32, ggml_compute_forward_pool_2d.
"""

from collections.abc import Mapping, Sequence
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
        order = np.argsort(-x, axis=-1, kind="stable")
        best = order[..., :n]
        if n < x.shape[-1]:
            last, next_one = (np.take_along_axis(x, order[..., i : i + 1], -1)[..., 0] for i in (n - 1, n))
            for row in zip(*np.nonzero((last == next_one) & np.isfinite(last)), strict=True):
                best[row] = partial_sort(x[row].tolist(), n)
        best[..., :2] = best[..., 1::-1]
        out[...] = best

    return run


def partial_sort(values: Sequence[float], n: int) -> list[int]:
    """The numbers of the `n` largest, largest first; of equal ones those that C++'s standard library (GNU) takes.

    It keeps a heap of the best so far, whose top is the least of them: scores of relu are often 0 in several places.
    """

    def sift(heap: list[int], hole: int, size: int, value: int) -> None:
        top = hole
        while (child := 2 * hole + 2) < size:
            child -= values[heap[child]] > values[heap[child - 1]]
            heap[hole], hole = heap[child], child
        if child == size:  # one child alone
            heap[hole], hole = heap[child - 1], child - 1
        while hole > top and values[heap[parent := (hole - 1) // 2]] > values[value]:
            heap[hole], hole = heap[parent], parent
        heap[hole] = value

    best = list(range(n))
    for parent in range(n // 2 - 1, -1, -1):
        sift(best, parent, n, best[parent])
    for i in range(n, len(values)):
        if values[i] > values[best[0]]:
            sift(best, 0, n, i)
    for size in range(n - 1, 0, -1):
        value, best[size] = best[size], best[0]
        sift(best, 0, size, value)
    return best


def pool_max(step: Step) -> Run:
    """The largest of so many elements of a row that follow each other; what is left over is left out."""
    kind, size = cast("tuple[str, int]", step.node.params)
    assert kind == "max", kind
    x, out = step.src[0], step.out
    whole = x[..., : out.shape[-1] * size]
    return lambda: np.max(whole.reshape(*out.shape, size), axis=-1, out=out)


OPERATIONS: Final[Mapping[str, Operation]] = {
    "LIGHTNING_INDEXER": lightning_indexer,
    "TOP_K": top_k,
    "POOL_2D": pool_max,
}
