"""Rows as wholes: norms, sums, order, and rows that are looked up, written or moved.

Source: llama.cpp 0c1e570 ggml/src/ggml-cpu/ops.cpp, ggml_compute_forward_*.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np

from ggufphys.gguf.ggml_types import GGMLType
from refengine.arrays import Array
from refengine.blocks import F32
from refengine.ops.step import Operation, Run, Step
from refengine.quant.convert import from_f32, to_f32


def _mean_square(x: F32) -> F32:
    squares: F32 = np.einsum("...i,...i->...", x, x)[..., np.newaxis]
    return squares / np.float32(x.shape[-1])


def rms_norm(step: Step) -> Run:
    """X / sqrt(mean(x^2) + eps)."""
    eps = np.float32(step.node.params[0])  # type: ignore[arg-type]
    x, out = step.src[0], step.out
    return lambda: np.multiply(x, np.float32(1) / np.sqrt(_mean_square(x) + eps), out)


def norm(step: Step) -> Run:
    """(x - mean) / sqrt(variance + eps)."""
    eps = np.float32(step.node.params[0])  # type: ignore[arg-type]
    x, out = step.src[0], step.out

    def run() -> None:
        centred = x - x.mean(axis=-1, keepdims=True)
        np.multiply(centred, np.float32(1) / np.sqrt(_mean_square(centred) + eps), out)

    return run


def l2_norm(step: Step) -> Run:
    """X / max(|x|, eps)."""
    eps = np.float32(step.node.params[0])  # type: ignore[arg-type]
    x, out = step.src[0], step.out

    def run() -> None:
        length = np.sqrt(np.einsum("...i,...i->...", x, x)[..., np.newaxis])
        np.multiply(x, np.float32(1) / np.maximum(length, eps), out)

    return run


def sum_rows(step: Step) -> Run:
    """The sum of each row."""
    x, out = step.src[0], step.out
    return lambda: np.sum(x, axis=-1, keepdims=True, out=out)


def mean(step: Step) -> Run:
    """The mean of each row."""
    x, out = step.src[0], step.out
    return lambda: np.mean(x, axis=-1, keepdims=True, out=out)


def argsort(step: Step) -> Run:
    """The order of each row's elements, largest first."""
    x, out = step.src[0], step.out

    def run() -> None:
        out[...] = np.argsort(-x, axis=-1, kind="stable")

    return run


def get_rows(step: Step) -> Run:
    """Rows of `(.., n_rows, E)` by number, each of the last two axes with rows of its own."""
    table, rows, out = step.src[0], step.src[1], step.out
    ggml_type = step.node.src[0].type

    def convert(found: Array) -> Array:
        return found if ggml_type is GGMLType.I32 else to_f32(found, ggml_type)

    def run() -> None:
        if table.shape[:2] == (1, 1):
            out[...] = convert(table[0, 0][rows[0]])
            return
        for i, j in np.ndindex(*rows.shape[1:3]):
            out[i, j] = convert(table[i, j][rows[0, i, j]])

    return run


def set_rows(step: Step) -> Run:
    """Write rows `(.., n, E)` of F32 over those of the destination that are named, in its type."""
    values, rows, out = step.src[0], step.src[1], step.out
    ggml_type = step.node.type
    n3, n2 = out.shape[:2]
    if (n3, n2) == (1, 1):
        target, source, numbers = out[0, 0], values[0, 0], rows[0, 0, 0]
        if target.shape[1] == 1 and target.flags.c_contiguous:  # single elements
            target, source = target.reshape(-1), source.reshape(-1) if source.flags.c_contiguous else source[:, 0]

        def run() -> None:
            target[numbers] = from_f32(source, ggml_type)

        return run

    def run_all() -> None:
        for i, j in np.ndindex(n3, n2):
            out[i, j][rows[0, i % rows.shape[1], j % rows.shape[2]]] = from_f32(values[i, j], ggml_type)

    return run_all


def copy(step: Step) -> Run:
    """Write elements in their order into another layout, shape or type."""
    source, out = step.src[0], step.out
    from_type, to_type = step.node.src[0].type, step.node.type

    def run() -> None:
        moved = source if from_type is to_type else from_f32(to_f32(source, from_type), to_type)
        out[...] = moved if moved.shape == out.shape else moved.reshape(out.shape)

    return run


def pad(step: Step) -> Run:
    """Zeros behind each axis, or as many in front as the node says."""
    x, out = step.src[0], step.out
    before = [int(n) for n in reversed(step.node.params)] or [0] * x.ndim  # type: ignore[call-overload]
    inner = out[tuple(slice(first, first + n) for first, n in zip(before, x.shape, strict=True))]

    def run() -> None:
        out.fill(0)
        inner[...] = x

    return run


def concat(step: Step) -> Run:
    """One behind the other along an axis, counted as ggml does."""
    axis = 3 - int(step.node.params[0])  # type: ignore[call-overload]
    a, b, out = step.reader(0), step.reader(1), step.out
    if all(source.dtype == out.dtype for source in step.src):  # numbers of rows, or blocks, as they are
        return lambda: np.concatenate(step.src, axis=axis, out=out)
    return lambda: np.concatenate((a(), b()), axis=axis, out=out)


def set_at(step: Step) -> Run:
    """A copy, in which a vector takes the place of elements that lie one behind the other."""
    first = int(step.node.params[0])  # type: ignore[call-overload]
    a, b, out = step.reader(0), step.reader(1), step.out

    def run() -> None:
        out[...] = a()
        vector = b().reshape(-1)
        out.reshape(-1)[first : first + vector.size] = vector

    return run


def repeat(step: Step) -> Run:
    """The whole again and again until the shape is full."""
    x, out = step.reader(0), step.out
    repeats = [n // m for n, m in zip(out.shape, step.src[0].shape, strict=True)]

    def run() -> None:
        out[...] = np.tile(x(), repeats)

    return run


# fmt: off
OPERATIONS: Final[Mapping[str, Operation]] = {
    "RMS_NORM": rms_norm, "NORM": norm, "L2_NORM": l2_norm,
    "SUM_ROWS": sum_rows, "MEAN": mean, "ARGSORT": argsort,
    "GET_ROWS": get_rows, "SET_ROWS": set_rows, "CPY": copy, "CONT": copy, "DUP": copy,
    "PAD": pad, "CONCAT": concat, "REPEAT": repeat, "SET": set_at,
}
# fmt: on
