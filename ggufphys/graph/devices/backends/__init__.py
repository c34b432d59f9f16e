"""How does each of llama.cpp's backends round sizes, and which weights does it leave to the CPU? A file for each.

A device's backend follows from its name, as llama.cpp names devices: CUDA0, MTL0, Vulkan0, RPC0[host:port]. What
differs between backends is data; a name of none of them gets `PLAIN`.
"""

from functools import cache
from typing import Final

from ggufphys.graph.devices.backends.backend import Backend
from ggufphys.graph.devices.backends.cpu import CPU, PLAIN
from ggufphys.params import Device

_NAMES: Final = ("RPC", "CUDA", "ROCm", "MUSA", "MTL", "Vulkan", "SYCL")  # what those of their devices begin with

__all__ = ["CPU", "PLAIN", "Backend", "backend_of"]


def backend_of(device: Device | str) -> Backend:
    """The backend of a device, by llama.cpp's name for it and, where that counts, by its limits."""
    name, limits = (device, None) if isinstance(device, str) else (device.name, device.limits)
    backend = next((b for b in _NAMES if name.startswith(b)), "")
    if backend == "Vulkan" and limits is not None:
        from ggufphys.graph.devices.backends.vulkan import vulkan

        return vulkan(limits)
    return _named(backend)


@cache
def _named(name: str) -> Backend:
    """Imported where there is such a device."""
    match name:
        case "RPC":
            from ggufphys.graph.devices.backends.rpc import RPC

            return RPC
        case "CUDA":
            from ggufphys.graph.devices.backends.cuda import CUDA

            return CUDA
        case "ROCm":
            from ggufphys.graph.devices.backends.cuda import ROCM

            return ROCM
        case "MUSA":
            from ggufphys.graph.devices.backends.cuda import MUSA

            return MUSA
        case "MTL":
            from ggufphys.graph.devices.backends.metal import METAL

            return METAL
        case "Vulkan":
            from ggufphys.graph.devices.backends.vulkan import VULKAN

            return VULKAN
        case "SYCL":
            from ggufphys.graph.devices.backends.sycl import SYCL

            return SYCL
        case _:
            return PLAIN
