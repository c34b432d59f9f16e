"""Vulkan, on devices of any maker: what decides about bytes is mostly the driver's limits.

Source: llama.cpp 0c1e570 ggml/src/ggml-vulkan/ggml-vulkan.cpp.
"""

from functools import cache, partial
from typing import Final

from ggufphys.graph.devices.backends.backend import LARGE_BATCH, Backend
from ggufphys.graph.devices.backends.vulkan_ops import max_tensor_bytes, supports
from ggufphys.graph.devices.backends.vulkan_order import reorder
from ggufphys.limits import DISCRETE, DeviceLimits

PREFIX: Final = "Vulkan"
HOST_MORE_BYTES: Final = 32


@cache
def vulkan(limits: DeviceLimits = DISCRETE) -> Backend:
    """The backend on a device with these limits."""
    max_buffer_bytes = min(limits.block_bytes, limits.allocation_bytes)
    return Backend(
        prefix=PREFIX,
        alignment=limits.storage_buffer_alignment_bytes,
        max_buffer_bytes=max_buffer_bytes,
        max_tensor_bytes=max_tensor_bytes(limits),
        pinned=Backend(
            prefix=f"{PREFIX}_Host",
            alignment=limits.memory_map_alignment_bytes,
            max_buffer_bytes=max_buffer_bytes,
            more_bytes=HOST_MORE_BYTES,
            proven=True,
            source="ggml/src/ggml-vulkan/ggml-vulkan.cpp, ggml_backend_vk_host_buffer_type",
        ),
        supports=partial(supports, limits=limits),
        reorder=reorder if limits.graph_optimize else None,
        pipelines=True,
        offloads_from=LARGE_BATCH,
        proven=True,
        source="ggml/src/ggml-vulkan/ggml-vulkan.cpp, ggml_backend_vk_buffer_type_get_alignment, "
        "ggml_backend_vk_buffer_type_get_max_size",
    )


VULKAN: Final = vulkan()
