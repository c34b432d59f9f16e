"""Vulkan, on devices of any maker."""

from typing import Final

from ggufphys.graph.devices.backends.backend import LARGE_BATCH, Backend

# The real alignment is the driver's minStorageBufferOffsetAlignment: 16 to 64 on common ones.
VULKAN: Final = Backend(
    prefix="Vulkan", alignment=64, host_buffer="Vulkan_Host", pipelines=True, offloads_from=LARGE_BATCH,
    source="ggml/src/ggml-vulkan/ggml-vulkan.cpp, ggml_backend_vk_buffer_type_get_alignment",
)  # fmt: skip
