"""Which machine is it, and which llama.cpp? What a calibration holds for, and nothing beyond."""

import os
import platform
import re
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from ggufphys.machine import host
from server.engine.llama.library import system_info

_CACHES: Final = Path("/sys/devices/system/cpu/cpu0/cache")
_UNITS: Final = {"K": 1 << 10, "M": 1 << 20}


def identity(threads: Sequence[int]) -> dict[str, Any]:
    """CPU, its features, caches and threads; llama.cpp's build; how its threads wait."""
    return {
        "cpu": cpu_name(),
        "n_cpus": os.cpu_count() or 1,
        "features": sorted(host.cpu_features()),
        "threads": list(threads),
        "last_cache_bytes": last_cache_bytes(),
        "llama_cpp": metadata.version("llama-cpp-python"),
        "system_info": system_info().strip(),
        "waiting": {name: os.environ.get(name, "") for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")},
    }


def cpu_name() -> str:
    """The CPU as the system calls it."""
    if platform.system() == "Linux":
        match = re.search(
            r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace"), re.MULTILINE
        )
        if match:
            return match[1].strip()
    return host.sysctl_text("machdep.cpu.brand_string") or platform.processor() or platform.machine()


def last_cache_bytes() -> int | None:
    """The largest of the CPU's caches; None where the system does not say."""
    sizes = []
    for path in _CACHES.glob("index*/size"):
        match = re.fullmatch(r"(\d+)([KM])", path.read_text(encoding="utf-8").strip())
        if match:
            sizes.append(int(match[1]) * _UNITS[match[2]])
    return max(sizes, default=None)
