"""What does NVIDIA's driver say of its devices? NVML by ctypes, which comes with the driver.

Source: NVIDIA's nvml.h: nvmlInit_v2, nvmlDeviceGetMemoryInfo and their like.
"""

import ctypes
import sys
from collections.abc import Sequence
from typing import Any, Final

from ggufphys.frozen import dataclass

_NAMES: Final = {
    "linux": ("libnvidia-ml.so.1", "/usr/lib/wsl/lib/libnvidia-ml.so.1"),
    "win32": ("nvml.dll", r"C:\Windows\System32\nvml.dll"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A device as NVML tells of it, in the PCI bus's order."""

    uuid: str
    name: str
    free_bytes: int


class _MemoryInfo(ctypes.Structure):
    """nvmlMemory_t."""

    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


def cards() -> list[Card]:
    """All cards the driver has.

    Raises:
        OSError: there is no driver, or it does not answer.
    """
    library = _load(_NAMES.get(sys.platform, ()))
    _ask(library.nvmlInit_v2)
    try:
        count = ctypes.c_uint()
        _ask(library.nvmlDeviceGetCount_v2, ctypes.byref(count))
        return [_card(library, i) for i in range(count.value)]
    finally:
        library.nvmlShutdown()


def _load(names: Sequence[str]) -> Any:
    for name in names:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise OSError("no NVML")


def _card(library: Any, index: int) -> Card:
    handle, memory = ctypes.c_void_p(), _MemoryInfo()
    uuid, name = ctypes.create_string_buffer(96), ctypes.create_string_buffer(96)
    _ask(library.nvmlDeviceGetHandleByIndex_v2, ctypes.c_uint(index), ctypes.byref(handle))
    _ask(library.nvmlDeviceGetMemoryInfo, handle, ctypes.byref(memory))
    _ask(library.nvmlDeviceGetUUID, handle, uuid, ctypes.c_uint(len(uuid)))
    _ask(library.nvmlDeviceGetName, handle, name, ctypes.c_uint(len(name)))
    return Card(uuid=uuid.value.decode(), name=name.value.decode(errors="replace"), free_bytes=memory.free)


def _ask(function: Any, *arguments: Any) -> None:
    status = function(*arguments)
    if status:
        raise OSError(f"NVML says {status}")
