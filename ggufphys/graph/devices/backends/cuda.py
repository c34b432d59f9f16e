"""CUDA, and the backends that are built from its sources under other names."""

from collections.abc import Mapping, Sequence
from typing import Final

from ggufphys.gguf import GGMLType
from ggufphys.graph.devices.backends.attends import cuda_has
from ggufphys.graph.devices.backends.backend import LARGE_BATCH, ROW_PADDING, Backend
from ggufphys.graph.devices.backends.cpu import pinned_as_cpu
from ggufphys.graph.devices.backends.order import Order
from ggufphys.graph.devices.backends.scratch import CUDA_SCRATCH
from ggufphys.graph.ir import Tensor

_TERNARY: Final = frozenset({GGMLType.TQ1_0, GGMLType.TQ2_0})


def _keep(nodes: Sequence[Tensor], uses: Mapping[Tensor, int]) -> Order:
    from ggufphys.graph.devices.backends.cuda_order import keep  # only where there is such a device

    return keep(nodes, uses)


def _cuda(prefix: str) -> Backend:
    return Backend(
        prefix=prefix, alignment=128, row_padding=ROW_PADDING, pinned=pinned_as_cpu(f"{prefix}_Host"), pipelines=True,
        offloads_from=LARGE_BATCH, without=_TERNARY, reorder=_keep, supports=cuda_has, scratch=CUDA_SCRATCH,
        source="ggml/src/ggml-cuda/ggml-cuda.cu, ggml_backend_cuda_buffer_type_get_alloc_size, "
        "ggml_backend_cuda_device_supports_op, ggml_backend_cuda_device_offload_op, ggml_backend_cuda_graph_optimize",
    )  # fmt: skip


CUDA: Final = _cuda("CUDA")
ROCM: Final = _cuda("ROCm")
MUSA: Final = _cuda("MUSA")
