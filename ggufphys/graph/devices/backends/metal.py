"""Apple's GPUs, which share main memory: weights stay in the mapped file."""

from collections.abc import Mapping, Sequence
from typing import Final

from ggufphys.gguf import GGMLType
from ggufphys.graph.devices.backends.attends import metal_has
from ggufphys.graph.devices.backends.backend import LARGE_BATCH, Backend
from ggufphys.graph.devices.backends.order import Order
from ggufphys.graph.devices.backends.scratch import METAL_SCRATCH
from ggufphys.graph.ir import Tensor


def _reorder(nodes: Sequence[Tensor], uses: Mapping[Tensor, int]) -> Order:
    from ggufphys.graph.devices.backends.metal_order import reorder  # only where there is such a device

    return reorder(nodes, uses)


METAL: Final = Backend(
    prefix="MTL", alignment=32, maps_files=True, pipelines=True,
    offloads_from=LARGE_BATCH, offloads_only=frozenset({"MUL_MAT", "MUL_MAT_ID"}), reorder=_reorder,
    without=frozenset({GGMLType.NVFP4, GGMLType.TQ1_0}), supports=metal_has, scratch=METAL_SCRATCH,
    source="ggml/src/ggml-metal/ggml-metal.cpp, ggml_backend_metal_buffer_type_get_alloc_size, "
    "ggml_backend_metal_device_buffer_mapped, ggml_backend_metal_graph_optimize; ggml-metal-device.m, "
    "ggml_metal_supports_mul_mat_op",
)  # fmt: skip
