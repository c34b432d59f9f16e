"""What does a device's driver allow, as far as it decides about bytes? Vulkan's limits, by names of our own.

Other backends ask their devices for nothing of the kind.

Source: llama.cpp 0c1e570 ggml/src/ggml-vulkan/ggml-vulkan.cpp, ggml_vk_get_device (which limit is what).
"""

from typing import Final, Literal

from ggufphys.frozen import dataclass

VISIBLE: Final = "GGML_VK_VISIBLE_DEVICES"  # the variable that says which devices there are for llama.cpp

DeviceKind = Literal["discrete", "integrated", "virtual", "cpu", "other"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceLimits:
    """One device's limits; what is not given is as discrete GPUs have it.

    A tensor may not be larger than `storage_buffer_range_bytes` (maxStorageBufferRange) and `buffer_bytes`
    (maxBufferSize); a buffer takes `allocation_bytes` at most (maxMemoryAllocationSize). Tensors begin at multiples of
    `storage_buffer_alignment_bytes` on the device and of `memory_map_alignment_bytes` in main memory that it reads.
    `subgroup_operations` are what `subgroup_size` threads of a compute shader may do together; with `full_subgroups`
    there can be exactly so many. A device of kind "cpu" is the processor itself: its memory is the process'.

    The last two are llama.cpp's own: its buffers take `block_bytes` at most, and it puts nodes in another order with
    `graph_optimize`; variables of the environment change them.

    Raises:
        ValueError: a limit that no driver has.
    """

    kind: DeviceKind = "discrete"
    storage_buffer_range_bytes: int = (1 << 32) - 1
    storage_buffer_alignment_bytes: int = 64
    memory_map_alignment_bytes: int = 64
    allocation_bytes: int = (1 << 32) - (1 << 21)
    buffer_bytes: int = (1 << 32) - 1
    shared_memory_bytes: int = 32 << 10
    subgroup_size: int = 32
    subgroup_operations: tuple[str, ...] = ("arithmetic", "ballot", "basic", "shuffle", "vote")
    full_subgroups: bool = True
    float16: bool = True
    block_bytes: int = 1 << 30
    graph_optimize: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "subgroup_operations", tuple(sorted(self.subgroup_operations)))
        for name in ("storage_buffer_alignment_bytes", "memory_map_alignment_bytes"):
            value = getattr(self, name)
            if value < 1 or value & (value - 1):
                raise ValueError(f"{name} is {value}, expected a power of two")
        for name in (
            "storage_buffer_range_bytes",
            "allocation_bytes",
            "buffer_bytes",
            "shared_memory_bytes",
            "block_bytes",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected 1 or more")


DISCRETE: Final = DeviceLimits()
