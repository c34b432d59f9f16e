"""What can this machine's CPU do? Only what decides about bytes: the features that choose a repacked layout.

Names are ggml's (ggml_cpu_has_*), without the prefix. Source: llama.cpp 0c1e570 ggml/src/ggml-cpu/ggml-cpu.c.
"""

import platform
import re
import subprocess
from functools import cache
from pathlib import Path
from typing import Final

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
    if platform.system() == "Linux":
        text = Path("/proc/cpuinfo").read_text(errors="replace")
        match = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
        words = set(match[1].split()) if match else set()
        return frozenset(ours for theirs, ours in _LINUX_NAMES.items() if theirs in words)
    if platform.system() == "Darwin" and platform.machine() == "arm64":
        return frozenset({"neon", "dotprod"} | ({"i8mm"} if _apple_has("hw.optional.arm.FEAT_I8MM") else set()))
    return frozenset({"neon", "dotprod"} if platform.machine().lower() in ("arm64", "aarch64") else {"avx2"})


def _apple_has(name: str) -> bool:
    answer = subprocess.run(["/usr/sbin/sysctl", "-n", name], capture_output=True, text=True, check=False)
    return answer.stdout.strip() == "1"
