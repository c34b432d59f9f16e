"""How much memory does a process hold right now, and of which kind?"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psutil  # of an extra, which help for a command does not need


@dataclass(frozen=True, slots=True, kw_only=True)
class MemorySample:
    """Bytes. `rss` = `anon` + `file` (shared memory counted as file); None where the system does not say."""

    rss_bytes: int
    anon_bytes: int | None
    file_bytes: int | None
    swap_bytes: int | None
    peak_bytes: int | None
    locked_bytes: int | None


def sample(process: "psutil.Process") -> MemorySample:
    """Read the process's memory.

    Raises:
        psutil.Error: the process is gone or may not be asked.
    """
    rss = int(process.memory_info().rss)
    status = _linux_status(process.pid)
    if status is None:
        return MemorySample(
            rss_bytes=rss, anon_bytes=None, file_bytes=None, swap_bytes=None, peak_bytes=None, locked_bytes=None
        )
    anon = status.get("RssAnon", 0)
    files = status.get("RssFile", 0) + status.get("RssShmem", 0)
    return MemorySample(
        rss_bytes=anon + files,
        anon_bytes=anon,
        file_bytes=files,
        swap_bytes=status.get("VmSwap", 0),
        peak_bytes=status.get("VmHWM"),
        locked_bytes=status.get("VmLck"),
    )


def _linux_status(pid: int) -> dict[str, int] | None:
    """/proc/<pid>/status's memory lines in bytes: psutil has the sum, the kernel its parts (man 5 proc)."""
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return {name: int(kib) * 1024 for name, kib in re.findall(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE)}
