"""How long does a whole process take, and how much memory? The operating system's own account of each run."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessRun:
    """One run of a command: seconds from start to reaping, and the largest resident set."""

    wall_s: float
    peak_rss_bytes: int


def run_process(command: Sequence[str]) -> ProcessRun:
    """Run a command to its end with its output thrown away.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    started = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    wall_s = time.perf_counter() - started
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise subprocess.CalledProcessError(child.returncode, command)
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss: bytes on macOS, KiB elsewhere
    return ProcessRun(wall_s=wall_s, peak_rss_bytes=usage.ru_maxrss * unit)
