"""Which shapes of flash attention does each backend have? llama.cpp's "auto" turns it off where a layer's lacks one.

Source: llama.cpp 0c1e570 ggml/src/ggml-cuda/fattn.cu, ggml_cuda_get_best_fattn_kernel; ggml/src/ggml-sycl/fattn.cpp,
ggml_sycl_get_best_fattn_kernel, built as usual (without GGML_SYCL_FA_ALL_QUANTS); ggml/src/ggml-metal/
ggml-metal-device.m, ggml_metal_device_supports_op, of a GPU with simdgroup matrices and BF16 (Apple7 and newer).
"""

from collections.abc import Mapping
from typing import Final

from ggufphys.gguf import GGMLType
from ggufphys.gguf.ggml_types import SIZES
from ggufphys.graph.devices.backends.backend import everything
from ggufphys.graph.ir import Tensor

ATTENTION: Final = "FLASH_ATTN_EXT"
ALIKE: Final = frozenset({40, 64, 72, 80, 96, 112, 128, 256})  # sizes of heads, K and V of the same
CELLS: Final = 256  # FATTN_KQ_STRIDE
STRIDE: Final = 16  # bytes that rows are a multiple of where heads of queries are taken together

F32, F16, BF16 = GGMLType.F32, GGMLType.F16, GGMLType.BF16
_LEGACY: Final = frozenset({GGMLType.Q4_0, GGMLType.Q4_1, GGMLType.Q5_0, GGMLType.Q5_1, GGMLType.Q8_0})
_CUDA_TYPES: Final = _LEGACY | {F32, F16, BF16}
_SYCL_TYPES: Final = frozenset({F32, F16, BF16, GGMLType.Q4_0, GGMLType.Q8_0})
# Heads of K that go with heads of V of another size: V's, and what the heads of queries to each must be a multiple of.
_CUDA_APART: Final[Mapping[int, tuple[int, int]]] = {192: (128, 8), 320: (256, 32), 512: (512, 1), 576: (512, 1)}
_METAL_HEADS: Final = frozenset({32, 40, 48, 64, 72, 80, 96, 112, 128, 192, 256, 320, 512, 576})


def cuda_has(node: Tensor) -> bool:
    """Whether CUDA has the operation: all but some flash attention."""
    if node.op != ATTENTION:
        return True
    k, v = node.src[1:3]
    if k.type not in _CUDA_TYPES or v.type not in _CUDA_TYPES or not _one_mask(node):
        return False
    if k.ne[0] in ALIKE:
        return v.ne[0] == k.ne[0]
    width, multiple = _CUDA_APART.get(k.ne[0], (0, 1))
    return v.ne[0] == width and _together(node) % multiple == 0 and _together(node) > 0


def sycl_has(node: Tensor) -> bool:
    """Whether SYCL has the operation: all but some flash attention."""
    if node.op != ATTENTION:
        return True
    k, v = node.src[1:3]
    if k.type not in _SYCL_TYPES or v.type is not k.type or not _one_mask(node):
        return False
    if k.ne[0] in ALIKE or k.ne[0] == 512:
        return v.ne[0] == k.ne[0]
    return k.ne[0] == 576 and v.ne[0] == 512 and _together(node) > 0


def metal_has(node: Tensor) -> bool:
    """Whether Metal has the operation: all but some flash attention."""
    if node.op != ATTENTION:
        return True
    q, k, v = node.src[:3]
    if q.ne[0] not in _METAL_HEADS or k.ne[0] < v.ne[0] or (k.ne[0] == 72 and v.ne[0] != 72):
        return False
    return k.type is v.type and (k.type in _LEGACY or k.type in (F32, F16, BF16))


# What says of a backend that it has all operations but some flash attention: kernels are for K and V of sizes that go
# together.
BY_PAIRS: Final = frozenset({cuda_has, sycl_has, metal_has})
HAVE_THE_REST: Final = BY_PAIRS | {everything}


def mask_of(node: Tensor) -> Tensor | None:
    """The mask of an attention, if it has one; what may stand behind it are its sinks."""
    has_sinks = bool(node.params[3])
    return node.src[3] if len(node.src) - has_sinks > 3 else None


def _one_mask(node: Tensor) -> bool:
    mask = mask_of(node)
    return mask is None or mask.ne[2] == 1


def _together(node: Tensor) -> int:
    """How many heads of queries go with one of keys; 0 where CUDA does not take these together."""
    q, k, v = node.src[:3]
    mask, ratio = mask_of(node), q.ne[2] // k.ne[2]
    if ratio < 2 or mask is None or node.params[1] or k.ne[1] % CELLS:
        return 0
    strided = (t for t in (q, k, v, mask) if SIZES[t.type].block_size == 1)
    return 0 if any(nb % STRIDE for t in strided for nb in t.nb[1:]) else ratio
