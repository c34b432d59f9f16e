"""Does this build of llama.cpp survive its own AMX kernels?

One compiled on a CPU with AMX dies by SIGSEGV in ggml_backend_amx_mul_mat on the first decode of a quantised model.
Weights reach those kernels through extra buffers only, so without these the model runs. Nothing in the build tells a
good one from a bad one: a child process tries.
"""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from ggufphys.params import Params

TIMEOUT_S: Final = 60.0
PROBE: Final = ("-m", "server.engine.amx_probe")
_COMPILED_IN: Final = re.compile(r"\bAMX_INT8 = 1\b")
_WINDOWS_FAULT: Final = 0xC0000000  # NTSTATUS of severity error: what a process dead by an exception leaves

Probe = Callable[[], int | None]
"""Runs the trial; the child's exit status as subprocess gives it, None when it did not end in time."""


def guard(params: Params, *, info: str, probe: Probe | None = None) -> tuple[Params, str]:
    """The parameters that are safe with this build, and a warning in one line (empty: nothing changed).

    `info` is llama.cpp's system info. The trial costs about a second, and only where AMX is compiled in and asked for.
    """
    if not params.use_extra_bufts or not _COMPILED_IN.search(info):
        return params, ""
    status = (probe or run_probe)()
    if status == 0:
        return params, ""
    if status is not None and not died(status):
        return params, f"could not try llama.cpp's AMX kernels (the trial exited with {status}); going on with them"
    how = "hung" if status is None else f"died ({describe(status)})"
    return replace(params, use_extra_bufts=False), (
        f"llama.cpp's AMX kernels {how} in a trial run, so weights are not repacked (as with --no-repack); "
        "rebuild llama-cpp-python with -mno-amx-tile -mno-amx-int8 to have repacking back"
    )


def died(status: int) -> bool:
    """Whether the process was ended by a signal (or a Windows exception), not by its own exit."""
    return status < 0 or status >= _WINDOWS_FAULT


def describe(status: int) -> str:
    """The signal's name for a negative status: `-11` gives `SIGSEGV`."""
    if status < 0 and -status in set(signal.Signals):
        return signal.Signals(-status).name
    return hex(status) if status >= _WINDOWS_FAULT else f"signal {-status}"


def run_probe(timeout_s: float = TIMEOUT_S) -> int | None:
    """Run the trial (`PROBE`) in a child process and wait for its end."""
    # The child must find the packages where this process found them, whatever its working directory.
    root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH", ""))))
    try:
        done = subprocess.run(
            [sys.executable, *PROBE],
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None
    return done.returncode
