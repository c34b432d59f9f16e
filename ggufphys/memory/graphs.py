"""How much does llama.cpp keep to build its graphs in, beside the buffers that they compute in?

Room for as many nodes as an architecture may want is zeroed in advance, so all of it is resident: once when a context
is created, and again for the first batch. The scheduler has tables of the same length.

Source: llama.cpp 0c1e570 src/llama-graph.cpp, llm_graph_result::reset; ggml/src/ggml.c, ggml_graph_nbytes,
ggml_hash_size; ggml/src/ggml-backend.cpp, ggml_backend_sched_new, ggml_backend_sched_reset.
"""

from typing import Final

TENSOR_OVERHEAD: Final = 32 + 336  # ggml_tensor_overhead: struct ggml_object and struct ggml_tensor
_GRAPH_HEAD: Final = 32 + 88  # struct ggml_object and struct ggml_cgraph
_POINTER: Final = 8
_COUNT: Final = 4
# ggml_hash_size takes the next of these: just above powers of two
_HASH_SIZES: Final = (
    1031, 2053, 4099, 8209, 16411, 32771, 65537, 131101, 262147, 524309, 1048583, 2097169, 4194319, 8388617,
)  # fmt: skip


def graph_bytes(n_nodes: int) -> int:
    """Bytes of one graph with room for so many nodes: tensors, nodes, leafs, a hash set and a count for each entry."""
    n_hash = _hash_size(2 * n_nodes)
    lists = 2 * n_nodes * _POINTER + n_hash * (_COUNT + _POINTER) + n_hash // 8
    return n_nodes * TENSOR_OVERHEAD + _GRAPH_HEAD + lists


def scheduler_bytes(n_nodes: int, n_backends: int) -> int:
    """Bytes that the scheduler touches: for each entry of its hash set a key, a backend, a copy on each backend."""
    return _hash_size(n_nodes) * (_POINTER + _COUNT + n_backends * _POINTER)


def _hash_size(n: int) -> int:
    return next((size for size in _HASH_SIZES if size >= n), n)
