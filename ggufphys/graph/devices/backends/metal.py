"""Apple's GPUs, which share main memory: weights stay in the mapped file."""

from typing import Final

from ggufphys.graph.devices.backends.backend import LARGE_BATCH, Backend
from ggufphys.graph.devices.backends.metal_order import reorder

METAL: Final = Backend(
    prefix="MTL", alignment=32, maps_files=True, pipelines=True,
    offloads_from=LARGE_BATCH, offloads_only=frozenset({"MUL_MAT", "MUL_MAT_ID"}), reorder=reorder,
    source="ggml/src/ggml-metal/ggml-metal.cpp, ggml_backend_metal_buffer_type_get_alloc_size, "
    "ggml_backend_metal_device_buffer_mapped, ggml_backend_metal_graph_optimize",
)  # fmt: skip
