"""Arrays that come and go."""

import platform
import subprocess
import sys

import pytest

# How often a fresh process waits for a page while it makes arrays of 1 MiB, some at a time, as those before.
CODE = """
import resource, sys
import numpy as np
from refengine.arrays import keep_temporaries

def work():
    a = np.ones(1 << 17)
    return a, 2 * a, a + a

if sys.argv[1] == "kept":
    keep_temporaries()
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="what glibc's malloc keeps")
def test_what_temporaries_leave_is_kept() -> None:
    """What arrays leave behind is there for those after them, without pages that the system must give again."""
    kept, given_back = (
        int(subprocess.run([sys.executable, "-c", CODE, how], capture_output=True, text=True, check=True).stdout)
        for how in ("kept", "given back")
    )

    assert kept * 10 < given_back
