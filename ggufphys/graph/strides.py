"""How do a tensor's elements lie? What ggml's backends ask about strides.

Source: llama.cpp 0c1e570 ggml/src/ggml.c, ggml_is_contiguous_n, ggml_is_contiguous_rows.
"""

from ggufphys.gguf.ggml_types import SIZES
from ggufphys.graph.ir import Tensor


def is_contiguous_from(n: int, tensor: Tensor) -> bool:
    """Whether the axes behind the `n`th lie dense (0: all of them), whatever the strides up to there."""
    size = SIZES[tensor.type]
    expected = size.type_size
    if tensor.ne[0] != size.block_size and tensor.nb[0] != expected:
        return False
    expected = expected * tensor.ne[0] // size.block_size
    for axis in range(1, 4):
        if tensor.ne[axis] == 1:
            continue
        if axis <= n:
            expected = tensor.ne[axis] * tensor.nb[axis]
        elif tensor.nb[axis] == expected:
            expected = expected * tensor.ne[axis]
        else:
            return False
    return True


def has_contiguous_rows(tensor: Tensor) -> bool:
    """Whether each row lies dense."""
    size = SIZES[tensor.type]
    return tensor.ne[0] == size.block_size or tensor.nb[0] == size.type_size
