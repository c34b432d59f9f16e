"""Which environment must stand before llama.cpp is loaded?

OMP_WAIT_POLICY=passive: with the default, idle OpenMP workers spin and steal the cores that the next step needs; decode
steps on two cores then take 10 to 100 times longer now and then. Whoever watches how busy the machine is may let them
spin for a while all the same (`SPINNING`; server/engine/llama/waiting.py): on a quiet one that is several times faster.
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


def given() -> dict[str, str]:
    """The environment without what stands there by us: what the user has set."""
    if OURS not in os.environ:
        return dict(os.environ)
    ours = {*ENVIRONMENT.items(), *SPINNING.items(), (OURS, "1")}
    return {name: value for name, value in os.environ.items() if (name, value) not in ours}


def prepare() -> None:
    """Set what the user has not set himself; call before the first `import llama_cpp`."""
    if "OMP_WAIT_POLICY" not in given():
        os.environ[OURS] = "1"
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
