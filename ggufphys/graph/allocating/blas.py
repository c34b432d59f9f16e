"""How large is the copy that a BLAS backend makes of weights? As large as the largest that it multiplies, in F32.

It takes products of batches from the CPU backend and wants both sides in F32: what is of another type is converted as a
whole, into a buffer that grows to the largest and is kept for as long as the context lives.

Source: llama.cpp 0c1e570 ggml/src/ggml-blas/ggml-blas.cpp, ggml_backend_blas_mul_mat (ctx->work_data),
ggml_backend_blas_device_supports_op, ggml_backend_blas_device_supports_buft.
"""

from collections.abc import Callable, Sequence
from math import prod
from typing import Final

from ggufphys.frozen import dataclass
from ggufphys.gguf import TensorInfo
from ggufphys.gguf.ggml_types import GGMLType
from ggufphys.graph.ir import Graph, Tensor
from ggufphys.graph.ops import as_known

MIN_BATCH: Final = 32  # of rows, columns and of what is added up
F32_BYTES: Final = 4
_INTEGERS: Final = frozenset({GGMLType.I8, GGMLType.I16, GGMLType.I32, GGMLType.I64})
NOT_CONVERTED: Final = _INTEGERS | {GGMLType.F64, GGMLType.Q8_1, GGMLType.Q8_K}  # without to_float in ggml.c


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """The largest that is converted: bytes in F32, and which tensor; 0 of none."""

    nbytes: int = 0
    name: str = ""


def multiplies(node: Tensor) -> bool:
    """Does BLAS have this operation, wherever its weights lie?

    Products with a Hadamard matrix it leaves to the CPU; the matrix is F32 and would not be copied anyway.
    """
    if node.op != "MUL_MAT":
        return False
    weights, x = node.src[0], node.src[1]
    return (
        weights.is_contiguous
        and x.is_contiguous
        and x.type is GGMLType.F32
        and min(node.ne[0], node.ne[1], x.ne[0]) >= MIN_BATCH
        and weights.type not in NOT_CONVERTED
    )


def largest_copy(
    graph: Graph,
    *,
    elsewhere: frozenset[str],
    alike: Callable[[str], Sequence[TensorInfo]],
    with_caches: bool,
) -> Copy:
    """The largest left operand that BLAS converts.

    `elsewhere` names weights that lie in other than plain buffers of the host: on devices, or repacked. `alike` gives
    the weights that one stands for in a graph of some of the layers. `with_caches`: caches lie on the host and are
    looked at as a whole, so that what attention multiplies may be dense, too.
    """
    largest = Copy()
    for node in graph.nodes:
        if not multiplies(node):
            continue
        weights = node.src[0]
        nbytes = F32_BYTES * prod(weights.ne)
        if nbytes <= largest.nbytes:
            continue
        if weights.external and weights.name:
            forms = [(weights.name, weights.type), *((t.name, as_known(t.ggml_type)) for t in alike(weights.name))]
            taken = next((name for name, t in forms if name not in elsewhere and t is not GGMLType.F32), None)
        else:
            taken = "attention" if with_caches and weights.type is not GGMLType.F32 else None
        if taken is not None:
            largest = Copy(nbytes=nbytes, name=taken)
    return largest
