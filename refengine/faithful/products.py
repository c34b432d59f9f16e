"""Products of matrices to the bit, of all tokens or of each with the experts it chose.

Source: llama.cpp 0c1e570 ggml/src/ggml-cpu/ggml-cpu.c, ggml_compute_forward_mul_mat, ggml_compute_forward_mul_mat_id.
"""

import numpy as np

from ggufphys.gguf.ggml_types import GGMLType
from ggufphys.graph.allocating.work import vec_dot_type
from refengine.blocks import F32
from refengine.faithful.blocks import Pieces, activations, block_product, kernel
from refengine.faithful.floats import FLOATS, dots
from refengine.ops import products
from refengine.ops.step import Run, Step
from refengine.quant.convert import rounded, to_f32


def mul_mat(step: Step) -> Run:
    """`(S, H, T, n_in)` times `(S, K, n_out, n_in)`: `(S, H, T, n_out)`."""
    w, x, simd = step.node.src[0], step.node.src[1], step.numerics.simd
    assert simd is not None
    if x.type is not GGMLType.F32:
        return products.mul_mat(step)
    if w.name == "rotation":
        return rotate(step)
    if w.type not in FLOATS:
        return block_product(step) or products.mul_mat(step)
    matrices, vectors, out, to_type = step.reader(0), step.reader(1), step.out, w.type
    # Rows that are converted lie dense behind it; those of F32 are taken as they lie.
    n_rows = x.ne[1] if w.type is not GGMLType.F32 or x.is_contiguous else 1

    def run() -> None:
        a, b = matrices(), rounded(vectors(), to_type)
        s, k = out.shape[0] // a.shape[0], out.shape[1] // a.shape[1]
        for i, j in np.ndindex(*out.shape[:2]):
            out[i, j] = dots(to_type, a[i // s, j // k], b[i, j], simd, n_rows=n_rows)

    return run


def rotate(step: Step) -> Run:
    """Rows times the normalised Hadamard matrix: sums and differences of neighbours, of pairs, of fours, ...

    Source: llama.cpp 0c1e570 ggml/src/ggml-cpu/ops.cpp, ggml_compute_forward_fwht_impl.
    """
    x, out = step.src[1], step.out
    n = x.shape[-1]
    scale = np.float32(1) / np.sqrt(np.float32(n))

    def run() -> None:
        rows, length = x * scale, 1
        while length < n:
            pairs = rows.reshape(*x.shape[:-1], -1, 2, length)
            rows = np.stack((pairs[..., 0, :] + pairs[..., 1, :], pairs[..., 0, :] - pairs[..., 1, :]), axis=-2)
            length *= 2
        out[...] = rows.reshape(x.shape)

    return run


def mul_mat_id(step: Step) -> Run:
    """`(1, T, U or 1, n_in)` times those of `(1, X, n_out, n_in)` that `(1, 1, T, U)` names: `(1, T, U, n_out)`.

    Rows are multiplied one by one, but for K-types, of which tiles take those of one expert at once.
    """
    experts, simd = step.node.src[0], step.numerics.simd
    assert simd is not None
    blocks, ids, out, read = step.src[0][0], step.src[2][0, 0], step.out[0], step.reader(1)
    is_float = experts.type in FLOATS
    if not is_float and kernel(experts.type, 1) is None:
        return products.mul_mat_id(step)
    to_type = vec_dot_type(experts.type)

    def multiplied(expert: int, rows: F32) -> F32:
        if is_float:
            matrix = to_f32(blocks[expert], experts.type)
            return dots(experts.type, matrix, rounded(rows, to_type), simd)
        multiply = kernel(experts.type, len(rows))
        assert multiply is not None
        x = activations(to_type, rows)
        return np.concatenate([multiply(piece, x) for _, piece in Pieces(experts.type, blocks[expert])], axis=1)

    def run() -> None:
        x = read()[0]
        for expert in np.unique(ids).tolist():
            tokens, slots = np.nonzero(ids == expert)
            out[tokens, slots] = multiplied(expert, x[tokens, slots if x.shape[1] > 1 else 0])

    return run
