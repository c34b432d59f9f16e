"""Shorter time slices are asked for and given back, and taken over by threads that begin later."""

import ctypes
import os
import platform
import struct
import subprocess
import sys

import pytest

from ggufphys.machine.children import environment
from server.engine.llama.slices import ATTRIBUTES, SCHED_SETATTR, SHORT_NS, ask

SCRIPT = """
import threading
from server.engine.llama.slices import SHORT_NS, USUAL_NS, ask
from tests.server.engine.llama.test_slices import slice_ns
before, found = slice_ns(), []
assert ask(SHORT_NS, threading.get_native_id())
thread = threading.Thread(target=lambda: found.append(slice_ns()))
thread.start()
thread.join()
own = slice_ns()
assert ask(USUAL_NS)
print(before, own, found[0], slice_ns())
"""
LINUX = platform.system() == "Linux" and platform.machine() in SCHED_SETATTR


def slice_ns() -> int:
    """What the kernel has for this thread; 0: an older one, which tells of real-time threads alone."""
    room = ctypes.create_string_buffer(struct.calcsize(ATTRIBUTES))
    get = SCHED_SETATTR[platform.machine()] + 1
    assert not ctypes.CDLL(None).syscall(get, 0, room, len(room), 0)
    return int(struct.unpack(ATTRIBUTES, room.raw)[5])


@pytest.mark.skipif(not LINUX, reason="Linux, by its calls' numbers")
def test_ask() -> None:
    """From Linux 6.12 on the kernel has it, for threads begun later too; before it is not heard of."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, env=environment(), check=True
    )  # fmt: skip
    before, own, begun_later, again = map(int, done.stdout.split())
    release = tuple(map(int, os.uname().release.split("-")[0].split(".")[:2]))
    if release >= (6, 12):
        assert before > SHORT_NS == own == begun_later
        assert again == before
    else:
        assert before == own == begun_later == again == 0


def test_a_thread_that_is_none() -> None:
    """One that has ended meanwhile is no error."""
    assert not ask(SHORT_NS, 2**22 + 1)
