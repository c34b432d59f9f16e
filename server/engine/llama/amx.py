"""Does this build of llama.cpp survive its own AMX kernels?

One compiled on a CPU with AMX dies by SIGSEGV in ggml_backend_amx_mul_mat on the first decode of a quantised model.
Weights reach those kernels through extra buffers only, so without these the model runs. Nothing in the build tells a
good one from a bad one: a child process tries.
"""

import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from ggufphys.machine.children import describe, died, environment, module_command
from ggufphys.params import Params

TIMEOUT_S: Final = 60.0
PROBE: Final = module_command("server.engine.llama.amx_probe")
_COMPILED_IN: Final = re.compile(r"\bAMX_INT8 = 1\b")

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
        return (
            params,
            f"could not try llama.cpp's AMX kernels (the trial ended with {describe(status)}); going on with them",
        )
    how = "hung" if status is None else f"died ({describe(status)})"
    return replace(params, use_extra_bufts=False), (
        f"llama.cpp's AMX kernels {how} in a trial run, so weights are not repacked (as with --no-repack); "
        "rebuild llama-cpp-python with -mno-amx-tile -mno-amx-int8 to have repacking back"
    )


def run_probe(timeout_s: float = TIMEOUT_S) -> int | None:
    """Run the trial (`PROBE`) in a child process and wait for its end."""
    try:
        done = subprocess.run(
            PROBE,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None
    return done.returncode
