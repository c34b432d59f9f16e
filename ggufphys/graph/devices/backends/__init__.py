"""How does each of llama.cpp's backends round sizes, and which weights does it leave to the CPU? A file for each.

A device's backend follows from its name, as llama.cpp names devices: CUDA0, MTL0, Vulkan0, RPC0[host:port]. What
differs between backends is data; a name of none of them gets `PLAIN`.
"""

from typing import Final

from ggufphys.graph.devices.backends.backend import Backend
from ggufphys.graph.devices.backends.cpu import CPU, PLAIN
from ggufphys.graph.devices.backends.cuda import CUDA, MUSA, ROCM
from ggufphys.graph.devices.backends.metal import METAL
from ggufphys.graph.devices.backends.rpc import RPC
from ggufphys.graph.devices.backends.sycl import SYCL
from ggufphys.graph.devices.backends.vulkan import VULKAN, vulkan
from ggufphys.params import Device

BACKENDS: Final[tuple[Backend, ...]] = (RPC, CUDA, ROCM, MUSA, METAL, VULKAN, SYCL)

__all__ = ["BACKENDS", "CPU", "PLAIN", "Backend", "backend_of"]


def backend_of(device: Device | str) -> Backend:
    """The backend of a device, by llama.cpp's name for it and, where that counts, by its limits."""
    name, limits = (device, None) if isinstance(device, str) else (device.name, device.limits)
    found = next((b for b in BACKENDS if name.startswith(b.prefix)), PLAIN)
    return vulkan(limits) if found is VULKAN and limits is not None else found
