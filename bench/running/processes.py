"""How long does a whole process take, and how much memory? The operating system's own account of each run."""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

LAUNCHER: Final = Path(__file__).with_name("launcher.py")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessRun:
    """One run of a command: seconds from start to reaping and on processors, and the largest resident set."""

    wall_s: float
    cpu_s: float
    peak_rss_bytes: int


def run_process(command: Sequence[str]) -> ProcessRun:
    """Run a command to its end with its output thrown away.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    launcher = [sys.executable, "-I", "-S", str(LAUNCHER), *command]
    answer = json.loads(subprocess.run(launcher, check=True, stdout=subprocess.PIPE).stdout)
    if answer["exit"]:
        raise subprocess.CalledProcessError(answer["exit"], command)
    return ProcessRun(wall_s=answer["wall_s"], cpu_s=answer["cpu_s"], peak_rss_bytes=answer["peak_rss_bytes"])
