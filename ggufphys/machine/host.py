"""What can this machine's CPU do, and how much main memory has it? Features are those that choose a repacked layout.

Their names are ggml's (ggml_cpu_has_*), without the prefix. Source: llama.cpp 0c1e570 ggml/src/ggml-cpu/ggml-cpu.c.
"""

import sys
from functools import cache
from typing import Any, Final

from ggufphys.frozen import dataclass
from ggufphys.paths import read_text

SYSTEM: Final[str] = sys.platform  # a plain str, so that type checkers look at what is for other systems, too

# /proc/cpuinfo's names -> ggml's
_LINUX_NAMES: Final = {
    "avx2": "avx2",
    "avx512f": "avx512",
    "asimd": "neon",
    "asimddp": "dotprod",
    "i8mm": "i8mm",
}


@cache
def cpu_features() -> frozenset[str]:
    """The features of the CPU this runs on; those of its architecture's common baseline where it can't be asked."""
    if SYSTEM == "linux":
        text = read_text("/proc/cpuinfo", errors="replace")
        line = next((line for line in text.split("\n") if line.startswith(("flags", "Features"))), "")
        words = set(line.partition(":")[2].split())
        return frozenset(ours for theirs, ours in _LINUX_NAMES.items() if theirs in words)
    import platform  # milliseconds that Linux does without

    if SYSTEM == "darwin" and platform.machine() == "arm64":
        return frozenset({"neon", "dotprod"} | ({"i8mm"} if _apple_has("hw.optional.arm.FEAT_I8MM") else set()))
    return frozenset({"neon", "dotprod"} if platform.machine().lower() in ("arm64", "aarch64") else {"avx2"})


@dataclass(frozen=True, slots=True, kw_only=True)
class MainMemory:
    """Bytes of main memory: all that this process may use, and what of it is free for the taking. 0: unknown."""

    total_bytes: int
    available_bytes: int


def main_memory() -> MainMemory:
    """What the machine has, or the container if that is less."""
    if SYSTEM == "linux":
        fields = dict(line.split(":", 1) for line in read_text("/proc/meminfo").splitlines())
        total, available = (_kb(fields.get(name, "0 kB")) for name in ("MemTotal", "MemAvailable"))
        limit, used = (_cgroup_number(name) for name in ("memory.max", "memory.current"))
        if limit is not None and limit < total:
            total, available = limit, min(available, max(0, limit - (used or 0)))
        return MainMemory(total_bytes=total, available_bytes=available)
    if SYSTEM == "darwin":
        total = sysctl_number("hw.memsize")
        free = sysctl_number("vm.page_free_count") * sysctl_number("hw.pagesize")
        return MainMemory(total_bytes=total, available_bytes=free)
    return _windows_memory() if SYSTEM == "win32" else MainMemory(total_bytes=0, available_bytes=0)


def _kb(text: str) -> int:
    """Bytes, of `  123 kB`."""
    return 1024 * int(text.split()[0])


def sysctl_text(name: str) -> str:
    """A value of macOS's sysctl; empty where there is none."""
    import subprocess  # milliseconds that other systems do without

    try:
        answer = subprocess.run(
            ["/usr/sbin/sysctl", "-n", name], capture_output=True, encoding="utf-8", errors="replace", check=False
        )
    except OSError:
        return ""
    return answer.stdout.strip()


def sysctl_number(name: str) -> int:
    """A number of macOS's sysctl; 0 where there is none."""
    text = sysctl_text(name)
    return int(text) if text.isdecimal() else 0


def _apple_has(name: str) -> bool:
    return sysctl_text(name) == "1"


def _cgroup_number(name: str) -> int | None:
    try:
        text = read_text(f"/sys/fs/cgroup/{name}").strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None


def _windows_memory() -> MainMemory:
    import ctypes  # here alone, and milliseconds to load

    class Status(ctypes.Structure):
        """MEMORYSTATUSEX."""

        _fields_ = (
            ("length", ctypes.c_ulong),
            ("load", ctypes.c_ulong),
            ("total", ctypes.c_ulonglong),
            ("available", ctypes.c_ulonglong),
            ("rest", ctypes.c_ulonglong * 5),
        )

    status = Status(length=ctypes.sizeof(Status))
    kernel: Any = getattr(ctypes, "windll").kernel32  # noqa: B009  # there on Windows alone
    kernel.GlobalMemoryStatusEx(ctypes.byref(status))
    return MainMemory(total_bytes=status.total, available_bytes=status.available)
