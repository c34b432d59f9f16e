"""How is one of our modules run in a child process, and what does its exit status say?

llama.cpp can take its process down (SIGSEGV, abort), so whatever must outlive that runs it in a child.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Final

from ggufphys.machine import llama_env

_ROOT: Final = str(Path(__file__).resolve().parents[2])
_WINDOWS_FAULT: Final = 0xC0000000  # NTSTATUS of severity error: what a process dead by an exception leaves


def module_command(module: str, *arguments: str) -> list[str]:
    """`python -m module arguments`, safe from a module of the same name in the working directory (-P)."""
    return [sys.executable, "-P", "-m", module, *arguments]


def environment(*, spinning: bool = False) -> dict[str, str]:
    """The child's environment: llama.cpp's settings, and our packages found where this process found them.

    `spinning`: its threads may wait for each other spinning, since it looks after that; unless the user has decided.
    """
    path = os.pathsep.join(filter(None, (_ROOT, os.environ.get("PYTHONPATH", ""))))
    settings, given = {**llama_env.ENVIRONMENT}, llama_env.given()
    if "OMP_WAIT_POLICY" not in given:
        settings |= {**(llama_env.SPINNING if spinning else {}), llama_env.OURS: "1"}
    return {**settings, **given, "PYTHONPATH": path}


def died(status: int) -> bool:
    """Whether the process was ended by a signal (or a Windows exception), not by its own exit."""
    return status < 0 or status >= _WINDOWS_FAULT


def describe(status: int) -> str:
    """What ended it: `SIGSEGV` for -11, `code 3` for 3."""
    if status < 0 and -status in set(signal.Signals):
        return signal.Signals(-status).name
    if status < 0:
        return f"signal {-status}"
    return hex(status) if died(status) else f"code {status}"
