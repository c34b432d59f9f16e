"""Products of matrices, of all tokens or of each with the experts it chose.

ggml converts the right operand to the type that the left one's dot product takes, and adds up in F32; here both become
F32 after that rounding, since products of integers and scales are then the same numbers.

Source: llama.cpp 0c1e570 ggml/src/ggml-cpu/ggml-cpu.c, ggml_compute_forward_mul_mat, ggml_compute_forward_mul_mat_id.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np

from ggufphys.gguf.ggml_types import SIZES, GGMLType
from ggufphys.graph.allocating.work import vec_dot_type
from refengine.arrays import rows_of
from refengine.blocks import F32
from refengine.ops.step import Operation, Run, Step
from refengine.quant.convert import rounded, to_f32
from refengine.quant.minima import WITH_MINIMA, lost_sums, minima


def operand_type(step: Step) -> GGMLType:
    """The type that the right operand is rounded to: blocks only when ggml's quantisation is to be emulated."""
    wanted = vec_dot_type(step.node.src[0].type)
    is_blocks = SIZES[wanted].block_size > 1
    return GGMLType.F32 if is_blocks and not step.numerics.emulate else wanted


def mul_mat(step: Step) -> Run:
    """`(S, H, T, n_in)` times `(S, K, n_out, n_in)`: `(S, H, T, n_out)`."""
    run = _mul_mat(step)
    return _with_lost_sums(step, run) if step.numerics.emulate and step.node.src[0].type in WITH_MINIMA else run


def _with_lost_sums(step: Step, run: Run) -> Run:
    blocks, vectors, out = step.src[0], step.reader(1), step.out
    ggml_type = step.node.src[0].type

    def both() -> None:
        run()
        out[...] += product(minima(blocks, ggml_type), lost_sums(vectors()))

    return both


def _mul_mat(step: Step) -> Run:
    w = step.node.src[0]
    if step.is_weight(0) and w.ne[2] == w.ne[3] == 1:
        return _with_matrix(step)
    matrices, vectors, out = step.reader(0), step.reader(1), step.out
    to_type = operand_type(step)

    def run() -> None:
        out[...] = product(matrices(), rounded(vectors(), to_type))

    return run


def _with_matrix(step: Step) -> Run:
    """All rows times one matrix of the file."""
    w, weights, to_type = step.node.src[0], step.weights, operand_type(step)
    read = step.reader(1)
    out = rows_of(step.out)
    assert np.shares_memory(out, step.out)
    if weights.hold == "f32" or w.type is GGMLType.F32:
        matrix = weights.f32(w)[0, 0].T
        if to_type is GGMLType.F32 and step.src[1].dtype == "f4" and step.src[1].flags.c_contiguous:
            x = rows_of(step.src[1])
            return lambda: np.matmul(x, matrix, out)
        return lambda: np.matmul(rows_of(rounded(read(), to_type)), matrix, out)

    def run() -> None:
        x = rows_of(rounded(read(), to_type))
        for start, piece in weights.pieces(w):
            np.matmul(x, piece.T, out[:, start : start + len(piece)])

    return run


def product(matrices: F32, vectors: F32) -> F32:
    """`(s, k, m, n)` with `(S, H, T, n)`, each matrix with the S/s * H/k that follow each other: `(S, H, T, m)`."""
    s, k, m, n = matrices.shape
    n_stream, n_head, n_tokens, _ = vectors.shape
    n_rows = n_head // k * n_tokens  # the heads that share a matrix as one stretch of rows
    if n_stream == s:
        out: F32 = np.matmul(vectors.reshape(s, k, n_rows, n), matrices.swapaxes(-1, -2))
    else:
        out = np.matmul(vectors.reshape(s, -1, k, n_rows, n), matrices[:, np.newaxis].swapaxes(-1, -2))
    return out.reshape(n_stream, n_head, n_tokens, m)


def mul_mat_id(step: Step) -> Run:
    """`(1, T, U or 1, n_in)` times those of `(1, X, n_out, n_in)` that `(1, 1, T, U)` names: `(1, T, U, n_out)`."""
    experts, ids, out = step.node.src[0], step.src[2][0, 0], step.out[0]
    read, to_type = step.reader(1), operand_type(step)
    blocks = step.src[0][0]
    held = step.weights.f32(experts)[0] if step.weights.hold == "f32" else None

    has_lost = step.numerics.emulate and experts.type in WITH_MINIMA

    def run() -> None:
        x = rounded(read(), to_type)[0]
        lost = lost_sums(read())[0] if has_lost else None
        for expert in np.unique(ids):
            tokens, slots = np.nonzero(ids == expert)
            matrix = to_f32(blocks[expert], experts.type) if held is None else held[expert]
            rows = slots if x.shape[1] > 1 else 0
            out[tokens, slots] = x[tokens, rows] @ matrix.T
            if lost is not None:
                out[tokens, slots] += lost[tokens, rows] @ minima(blocks[expert], experts.type).T

    return run


OPERATIONS: Final[Mapping[str, Operation]] = {"MUL_MAT": mul_mat, "MUL_MAT_ID": mul_mat_id}
