"""What do Vulkan's drivers say of their devices? Vulkan's loader asked, by ctypes.

Source: vulkan_core.h (where a field lies in its structure); llama.cpp 0c1e570 ggml/src/ggml-vulkan/ggml-vulkan.cpp,
ggml_vk_get_device (which of them count), ggml_backend_vk_get_device_memory.
"""

import ctypes
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final, get_args

from ggufphys.frozen import dataclass
from ggufphys.limits import DeviceKind, DeviceLimits

_LOADER: Final = {"win32": "vulkan-1.dll", "darwin": "libvulkan.1.dylib"}
_VERSION: Final = 1 << 22 | 2 << 12  # 1.2, which llama.cpp asks for
_KINDS: Final[Sequence[DeviceKind]] = ("other", "integrated", "discrete", "virtual", "cpu")  # VkPhysicalDeviceType
_OPERATIONS: Final = {"basic": 1, "vote": 2, "arithmetic": 4, "ballot": 8, "shuffle": 16}  # VkSubgroupFeatureFlagBits
_COMPUTE: Final = 32  # VK_SHADER_STAGE_COMPUTE_BIT
_DEVICE_LOCAL: Final = 1  # VK_MEMORY_HEAP_DEVICE_LOCAL_BIT

# VkStructureType
_APPLICATION, _INSTANCE = 0, 1
_VULKAN11_PROPERTIES, _VULKAN12_FEATURES, _VULKAN12_PROPERTIES = 50, 51, 52
_FEATURES2, _PROPERTIES2, _MEMORY2 = 1000059000, 1000059001, 1000059006
_MAINTENANCE3, _MAINTENANCE4 = 1000168000, 1000413001
_SUBGROUP_SIZES, _MEMORY_BUDGET = 1000225002, 1000237000
_HEAD: Final = 16  # sType and pNext
_LIMITS: Final = _HEAD + 296  # VkPhysicalDeviceProperties.limits
_MAX_HEAPS: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class VulkanDevice:
    """A device as its driver describes it; `memory_bytes` is what is free."""

    name: str
    memory_bytes: int
    limits: DeviceLimits
    uuid: bytes
    vendor: int
    driver: int


def all_devices() -> tuple[VulkanDevice, ...]:
    """The devices of all drivers, in the loader's order; none without a loader."""
    with _instance() as instance:
        return () if instance is None else instance.devices()


class _Chain:
    """Structures that a driver fills in one call, each a stretch of bytes that points to the next."""

    def __init__(self, *structures: tuple[int, int]) -> None:
        self.parts = [ctypes.create_string_buffer(size + _HEAD) for _, size in structures]
        following = 0
        for part, (kind, _) in zip(reversed(self.parts), reversed(structures), strict=True):
            ctypes.c_uint32.from_buffer(part).value = kind
            ctypes.c_void_p.from_buffer(part, 8).value = following
            following = ctypes.addressof(part)

    def u32(self, part: int, offset: int) -> int:
        return ctypes.c_uint32.from_buffer(self.parts[part], offset).value

    def u64(self, part: int, offset: int) -> int:
        return ctypes.c_uint64.from_buffer(self.parts[part], offset).value


class _Instance:
    def __init__(self, library: ctypes.CDLL, handle: int) -> None:
        self.library = library
        self.handle = ctypes.c_void_p(handle)

    def devices(self) -> tuple[VulkanDevice, ...]:
        count = ctypes.c_uint32(0)
        enumerate_devices = self.library.vkEnumeratePhysicalDevices
        if enumerate_devices(self.handle, ctypes.byref(count), None) or not count.value:
            return ()
        handles = (ctypes.c_void_p * count.value)()
        enumerate_devices(self.handle, ctypes.byref(count), handles)
        return tuple(self.device(ctypes.c_void_p(handle)) for handle in handles[: count.value])

    def device(self, handle: ctypes.c_void_p) -> VulkanDevice:
        chain = _Chain(
            (_PROPERTIES2, 824), (_VULKAN11_PROPERTIES, 96), (_VULKAN12_PROPERTIES, 720), (_MAINTENANCE3, 16),
            (_MAINTENANCE4, 8),
        )  # fmt: skip
        self.library.vkGetPhysicalDeviceProperties2(handle, chain.parts[0])
        features = _Chain((_FEATURES2, 224), (_VULKAN12_FEATURES, 192), (_SUBGROUP_SIZES, 8))
        self.library.vkGetPhysicalDeviceFeatures2(handle, features.parts[0])
        kind = chain.u32(0, _HEAD + 16)
        stages, operations = chain.u32(1, _HEAD + 52), chain.u32(1, _HEAD + 56)
        allocation_bytes, buffer_bytes = chain.u64(3, _HEAD + 8), chain.u64(4, _HEAD)
        limits = DeviceLimits(
            kind=_KINDS[kind] if kind < len(_KINDS) else "other",
            storage_buffer_range_bytes=chain.u32(0, _LIMITS + 28),
            storage_buffer_alignment_bytes=chain.u64(0, _LIMITS + 328),
            memory_map_alignment_bytes=chain.u64(0, _LIMITS + 304),
            allocation_bytes=min(allocation_bytes, buffer_bytes or allocation_bytes),
            buffer_bytes=buffer_bytes or allocation_bytes,
            shared_memory_bytes=chain.u32(0, _LIMITS + 216),
            subgroup_size=chain.u32(1, _HEAD + 48),
            subgroup_operations=tuple(
                name for name, bit in _OPERATIONS.items() if stages & _COMPUTE and operations & bit
            ),
            full_subgroups=bool(features.u32(2, _HEAD + 4)),
            float16=bool(features.u32(1, _HEAD + 28)),
        )
        return VulkanDevice(
            name=chain.parts[0].raw[_HEAD + 20 : _HEAD + 276].split(b"\0")[0].decode(errors="replace"),
            memory_bytes=self.memory_bytes(handle, is_integrated=limits.kind == "integrated"),
            limits=limits,
            uuid=chain.parts[1].raw[_HEAD : _HEAD + 16],
            vendor=chain.u32(0, _HEAD + 8),
            driver=chain.u32(2, _HEAD),
        )

    def memory_bytes(self, handle: ctypes.c_void_p, *, is_integrated: bool) -> int:
        """Free bytes of the device's own heaps, of all heaps where it shares main memory."""
        chain = _Chain((_MEMORY2, 520), (_MEMORY_BUDGET, 16 * _MAX_HEAPS))
        self.library.vkGetPhysicalDeviceMemoryProperties2(handle, chain.parts[0])
        n_heaps, free = chain.u32(0, _HEAD + 260), 0
        for i in range(n_heaps):
            size, flags = chain.u64(0, _HEAD + 264 + 16 * i), chain.u32(0, _HEAD + 272 + 16 * i)
            if is_integrated or flags & _DEVICE_LOCAL:
                budget, used = (chain.u64(1, _HEAD + 8 * (i + at)) for at in (0, _MAX_HEAPS))
                free += budget - used if budget else size  # zeros where the driver does not know
        return free


@contextmanager
def _instance() -> Iterator[_Instance | None]:
    """Vulkan as long as it is needed; None where there is no loader, or no driver that it can start."""
    try:
        library = ctypes.CDLL(_LOADER.get(sys.platform, "libvulkan.so.1"))
    except OSError:
        yield None
        return
    application = ctypes.create_string_buffer(48)  # VkApplicationInfo: all zero but its version
    ctypes.c_uint32.from_buffer(application, 44).value = _VERSION
    create = ctypes.create_string_buffer(64)  # VkInstanceCreateInfo
    ctypes.c_uint32.from_buffer(create).value = _INSTANCE
    ctypes.c_void_p.from_buffer(create, 24).value = ctypes.addressof(application)
    handle = ctypes.c_void_p()
    if library.vkCreateInstance(create, None, ctypes.byref(handle)) or not handle.value:
        yield None
        return
    try:
        yield _Instance(library, handle.value)
    finally:
        library.vkDestroyInstance(handle, None)


assert set(_KINDS) == set(get_args(DeviceKind))
