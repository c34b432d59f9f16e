"""What does a backend add to a node's bytes in the compute buffer, for what it needs while it computes the node?

Flash attention, mostly: keys and values in F16, where the cache has them in another type, and on Metal always.

Source: llama.cpp 0c1e570 ggml/src/ggml-cuda/fattn.cu, ggml_cuda_flash_attn_ext_get_alloc_size; ggml/src/ggml-sycl/
fattn.cpp, ggml_sycl_fattn_get_extra (without oneDNN); ggml/src/ggml-metal/ggml-metal.cpp,
ggml_backend_metal_buffer_type_get_alloc_size; ggml-metal-ops.cpp, ggml_metal_op_flash_attn_ext_extra_pad, _blk, _tmp
and _kv_f16 (not _idx, lists of chosen cells), ggml_metal_op_mul_mat_id_extra_tpe, _ids and _amax.
"""

from typing import Final

from ggufphys.gguf import GGMLType
from ggufphys.gguf.ggml_types import SIZES
from ggufphys.graph.devices.backends.attends import ATTENTION, mask_of
from ggufphys.graph.devices.backends.backend import Scratch
from ggufphys.graph.ir import Tensor

F16_BYTES: Final = 2
I32_BYTES: Final = 4
CELLS_AT_A_TIME: Final = 64  # OP_FLASH_ATTN_EXT_NCPSG
QUERIES_AT_A_TIME: Final = 8  # OP_FLASH_ATTN_EXT_NQPSG
GROUPS: Final = 32  # that each query's cells may be divided among
MAXIMA: Final = 8 + 4 * 256  # two factors, and N_MM_NPART_AMAX of groups
VECTOR_QUERIES: Final = 20  # from so many on Metal uses its kernel for matrices


def _cuda_attention(node: Tensor) -> int:
    """K and V in F16, unless they are, or the kernel for one or two queries reads them as they are."""
    q, k, v = node.src[:3]
    if q.ne[1] <= 2 and q.ne[0] <= 256 and q.ne[0] % 64 == 0 and _is_quantised(k) and k.type is v.type:
        return 0
    return _in_f16(node)


def _metal_experts(node: Tensor) -> int:
    n_experts, n_tokens = node.src[0].ne[2], node.src[2].ne[1]
    return I32_BYTES * (n_experts + n_experts * n_tokens) + MAXIMA


def _as_much(node: Tensor) -> int:
    return node.nbytes


def _metal_top_k(node: Tensor) -> int:
    return 2 * I32_BYTES * _n_elements(node.src[0]) - node.nbytes


def _in_f16(node: Tensor) -> int:
    k, v = node.src[1:3]
    n = 0 if k.type is GGMLType.F16 else _n_elements(k)
    if v.type is not GGMLType.F16 and not _shows(v, k):
        n += _n_elements(v)
    return F16_BYTES * n


def _metal_attention(node: Tensor) -> int:
    q, k, v = node.src[:3]
    mask, shown = mask_of(node), _shows(v, k)
    row_k, row_v = k.nb[1], v.nb[1]
    if q.ne[1] >= 32 and _is_quantised(k):
        row_k, row_v = F16_BYTES * k.ne[0], F16_BYTES * (k if shown else v).ne[0]
    padded = row_k * k.ne[2] * k.ne[3] + row_v * v.ne[2] * v.ne[3]
    blocks = 0
    if mask is not None:
        padded += F16_BYTES * mask.ne[1] * mask.ne[2] * mask.ne[3]
        is_vector = q.ne[1] < VECTOR_QUERIES and q.ne[0] % 32 == 0
        queries, cells = (1, 32) if is_vector else (QUERIES_AT_A_TIME, CELLS_AT_A_TIME)
        n_blocks = -(-mask.ne[0] // cells) * -(-q.ne[1] // queries) * mask.ne[2] * mask.ne[3]
        blocks = -(-n_blocks // 32) * 32
    parts = 4 * min(q.ne[1], 32) * q.ne[2] * q.ne[3] * GROUPS * (v.ne[0] + 2)
    cached = F16_BYTES * (_n_elements(k) + (0 if shown else _n_elements(v)))
    return CELLS_AT_A_TIME * padded + blocks + parts + -(-cached // 16) * 16


def _is_quantised(tensor: Tensor) -> bool:
    return SIZES[tensor.type].block_size > 1


def _n_elements(tensor: Tensor) -> int:
    return tensor.ne[0] * tensor.ne[1] * tensor.ne[2] * tensor.ne[3]


def _shows(v: Tensor, k: Tensor) -> bool:
    """Whether values are the first elements of the keys."""
    return v.view_src is not None and (v.view_src is k or (v.view_src is k.view_src and v.offset == k.offset))


# By operation, the bytes behind a node's own.
CUDA_SCRATCH: Final[Scratch] = {ATTENTION: _cuda_attention}
SYCL_SCRATCH: Final[Scratch] = {ATTENTION: _in_f16}
METAL_SCRATCH: Final[Scratch] = {
    ATTENTION: _metal_attention, "MUL_MAT_ID": _metal_experts, "CUMSUM": _as_much, "ARGSORT": _as_much,
    "TOP_K": _metal_top_k,
}  # fmt: skip
