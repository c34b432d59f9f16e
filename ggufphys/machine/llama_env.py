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

# For who watches: libgomp's own number of turns, so that on a quiet machine threads wait as llama-server's do.
# "active": while there are more threads than processors they spin for 1,000 turns; "passive": for none.
# Source: GCC libgomp/env.c, gomp_throttled_spin_count_var.
SPINNING: Final[Mapping[str, str]] = {"OMP_WAIT_POLICY": "active", "GOMP_SPINCOUNT": "300000"}


OURS: Final = "GGUFPHYS_OMP_WAIT_POLICY"  # beside a policy that is ours, in this process and in those that it starts


def is_waiting_decided() -> bool:
    """Has the user set how threads wait?"""
    return "OMP_WAIT_POLICY" in os.environ and OURS not in os.environ


def prepare() -> None:
    """Set what the user has not set himself; call before the first `import llama_cpp`."""
    if not is_waiting_decided():
        os.environ[OURS] = "1"
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
