"""Which Vulkan devices has this machine, and what do their drivers allow?

Devices are numbered as llama.cpp numbers them: those that GGML_VK_VISIBLE_DEVICES lists, else all real GPUs, each once
even if two drivers show it. A device that is the processor itself (lavapipe) counts only where the variable names it.

Source: llama.cpp 0c1e570 ggml/src/ggml-vulkan/ggml-vulkan.cpp, ggml_vk_instance_init, ggml_vk_get_device.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from ggufphys.frozen import replace
from ggufphys.limits import DISCRETE, VISIBLE
from ggufphys.params import Device

if TYPE_CHECKING:
    from ggufphys.machine.vulkan_driver import VulkanDevice

PREFIX: Final = "Vulkan"
OPTIMIZE_OFF: Final = "GGML_VK_DISABLE_GRAPH_OPTIMIZE"
_VARIABLES: Final = {
    "GGML_VK_SUBALLOCATION_BLOCK_SIZE": "block_bytes",
    "GGML_VK_FORCE_MAX_ALLOCATION_SIZE": "allocation_bytes",
    "GGML_VK_FORCE_MAX_BUFFER_SIZE": "buffer_bytes",
}
# VkDriverId by vendor, the preferred first, where two drivers show one GPU.
_PREFERRED: Final = {0x1002: (3, 2, 1), 0x8086: (6, 5), 0x10DE: (4, 21), 0x5143: (8, 18)}


def vulkan_devices() -> "tuple[VulkanDevice, ...]":
    """The devices that llama.cpp's Vulkan backend would use, in its order; none without a loader."""
    from ggufphys.machine.vulkan_driver import all_devices  # ctypes takes milliseconds that most calls do not need

    return chosen(all_devices(), os.environ.get(VISIBLE))


def chosen(found: "Sequence[VulkanDevice]", variable: str | None) -> "tuple[VulkanDevice, ...]":
    """Of all devices those that llama.cpp uses."""
    if variable is not None:
        numbers = []
        for word in variable.replace(",", " ").split():
            if not word.isdecimal() or int(word) >= len(found):
                break  # llama.cpp finds no device at all then, or stops reading
            numbers.append(int(word))
        return tuple(found[i] for i in numbers)
    own: dict[bytes, VulkanDevice] = {}
    for device in found:
        if device.limits.kind not in ("discrete", "integrated"):
            continue
        other = own.get(device.uuid)
        if other is None or _rank(device) < _rank(other):
            own.pop(device.uuid, None)
            own[device.uuid] = device
    return tuple(own.values()) or tuple(d for d in found if d.limits.kind != "cpu")[:1]


def with_limits(devices: Iterable[Device]) -> tuple[Device, ...]:
    """The devices, Vulkan's with the limits of this machine's of the same name, else with a discrete GPU's.

    A size that is not known is what is free. Variables of the environment that llama.cpp reads count for all.
    """
    devices = tuple(devices)
    if not any(device.name.startswith(PREFIX) and device.limits is None for device in devices):
        return devices
    here = {f"{PREFIX}{i}": device for i, device in enumerate(vulkan_devices())}
    return tuple(_with_limits(device, here.get(device.name)) for device in devices)


def _with_limits(device: Device, here: "VulkanDevice | None") -> Device:
    if not device.name.startswith(PREFIX) or device.limits is not None:
        return device
    limits = replace(DISCRETE if here is None else here.limits, **_by_variables(os.environ))
    size = device.memory_bytes or (0 if here is None else here.memory_bytes)
    return replace(device, memory_bytes=size, limits=limits)


def _by_variables(environment: Mapping[str, str]) -> dict[str, Any]:
    """The limits that variables of the environment set.

    Raises:
        ValueError: one is no number.
    """
    limits: dict[str, Any] = {}
    for variable, name in _VARIABLES.items():
        text = environment.get(variable)
        if text is None:
            continue
        if not text.isdecimal():
            raise ValueError(f"{variable} is {text!r}, expected a number of bytes")
        limits[name] = int(text)
    if OPTIMIZE_OFF in environment:
        limits["graph_optimize"] = False
    return limits


def _rank(device: "VulkanDevice") -> int:
    preferred = _PREFERRED.get(device.vendor, ())
    return preferred.index(device.driver) if device.driver in preferred else len(preferred)
