"""Which GPUs has this machine, by llama.cpp's names, and how much of their memory is free?

Asked of the driver where it is installed (NVML, sysctl), without any package; where it cannot be asked there is none.
NVIDIA's numbers follow CUDA_VISIBLE_DEVICES, but are the PCI bus's otherwise: CUDA puts the fastest device first, so
that names of unlike ones may be exchanged unless CUDA_DEVICE_ORDER=PCI_BUS_ID is set.
"""

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from ggufphys.frozen import dataclass
from ggufphys.limits import VISIBLE
from ggufphys.machine import host
from ggufphys.params import Device
from ggufphys.paths import is_there, names_in

if TYPE_CHECKING:
    from ggufphys.machine.nvml import Card

# Where the NVIDIA driver shows itself; asking for these is cheaper than looking for a library.
_RENDERERS: Final = "/dev/dri"  # where Linux shows GPUs of other makers
_DRIVER_SIGNS: Final = ("/dev/nvidiactl", "/dev/dxg", "/proc/driver/nvidia/version")


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundDevice:
    """A device of this machine: what llama.cpp calls it and what it is."""

    device: Device
    description: str


def find_devices() -> tuple[FoundDevice, ...]:
    """The GPUs that a llama.cpp with the usual backend for this machine would use; empty where there are none."""
    if sys.platform == "darwin":
        return _metal()
    if sys.platform == "linux" and not any(map(is_there, _DRIVER_SIGNS)):
        asked = VISIBLE in os.environ or any(name.startswith("renderD") for name in names_in(_RENDERERS))
        return find_vulkan() if asked else ()
    from ggufphys.machine.nvml import cards  # ctypes takes milliseconds that a machine without a GPU does not need

    try:
        return _visible(cards(), os.environ.get("CUDA_VISIBLE_DEVICES"))
    except (OSError, AttributeError):  # no driver, or one of another age
        return ()


def find_vulkan() -> tuple[FoundDevice, ...]:
    """The devices that llama.cpp's Vulkan backend would use."""
    from ggufphys.machine.vulkan import PREFIX, vulkan_devices, with_limits  # where there may be such devices

    found = vulkan_devices()
    devices = with_limits(Device(name=f"{PREFIX}{i}", memory_bytes=d.memory_bytes) for i, d in enumerate(found))
    return tuple(FoundDevice(device=d, description=f.name) for d, f in zip(devices, found, strict=True))


def _visible(cards: "Sequence[Card]", variable: str | None) -> tuple[FoundDevice, ...]:
    """The cards that CUDA would number, in its order: those listed, up to the first entry that is none."""
    chosen = list(cards)
    if variable is not None:
        chosen = []
        for entry in filter(None, (part.strip() for part in variable.split(","))):
            number = int(entry) if entry.isdecimal() else -1
            match = [c for i, c in enumerate(cards) if i == number or (number < 0 and c.uuid.startswith(entry))]
            if len(match) != 1 or match[0] in chosen:
                break
            chosen += match
    return tuple(
        FoundDevice(device=Device(name=f"CUDA{i}", memory_bytes=card.free_bytes), description=card.name)
        for i, card in enumerate(chosen)
    )


def _metal() -> tuple[FoundDevice, ...]:
    """The GPU of an Apple chip, which may use the memory that macOS lets it wire down.

    Source: sysctl iogpu.wired_limit_mb where it is set.
    """
    import platform  # milliseconds that other systems do without

    if platform.machine() != "arm64":
        return ()
    limit_mib, total = host.sysctl_number("iogpu.wired_limit_mb"), host.sysctl_number("hw.memsize")
    memory_bytes = limit_mib << 20 if limit_mib else unified_bytes(total)
    name = host.sysctl_text("machdep.cpu.brand_string") or "Apple GPU"
    return (FoundDevice(device=Device(name="MTL0", memory_bytes=memory_bytes), description=name),)


def unified_bytes(total: int) -> int:
    """What of an Apple chip's memory its GPU may use where nobody has set it.

    Metal's recommendedMaxWorkingSetSize decides, which needs Metal to ask; two thirds of the memory is what it is on
    small machines, and less than on large ones.
    """
    return 2 * total // 3
