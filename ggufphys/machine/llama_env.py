"""Which environment must stand before llama.cpp is loaded?

OMP_WAIT_POLICY=passive: with the default, idle OpenMP workers spin and steal the cores that the next step needs; decode
steps on two cores then take 10 to 100 times longer now and then. Whoever watches how busy the machine is may let them
spin for a while all the same (`SPINNING`; server/engine/waiting.py): on a quiet one that is several times faster.
GGML_NO_BACKTRACE=1: an abort() inside llama.cpp would otherwise start a debugger on the process.
"""

import os
from collections.abc import Mapping
from typing import Final

ENVIRONMENT: Final[Mapping[str, str]] = {"OMP_WAIT_POLICY": "passive", "GGML_NO_BACKTRACE": "1"}

# libgomp's own default, so that on a quiet machine threads wait as llama-server's do. A tenth is as good for small
# models; with larger ones threads wait longer for each other than that, and a third of the speed is lost.
SPINNING: Final[Mapping[str, str]] = {"GOMP_SPINCOUNT": "300000"}


def prepare() -> None:
    """Set what the user has not set himself; call before the first `import llama_cpp`."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
