"""What do the server's processes hold beside the model? The engine's before it loads one, and the HTTP side's threads.

What can be measured before anything is loaded is: a child does what the worker does, up to the model. The HTTP side's
threads are there while requests are under way, and a few wait for the next (`dispatching.py`).
"""

import ctypes
import functools
import json
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from ggufphys.machine.children import environment, module_command
from ggufphys.params import Device
from server.engine.llama.devices import available_devices
from server.engine.llama.library import load_library

# What a thread that has answered a request holds: its stack as deep as it went, measured on Linux x86-64, CPython 3.11,
# and the block that Python's frames lie in (Source: CPython 3.11 Python/pystate.c, DATA_STACK_CHUNK_SIZE).
THREAD_BYTES: Final = (16 << 10) + (16 << 10)
# What a request under way takes beside: its objects, whose places Python keeps. Measured likewise: RssAnon, less that
# of threads, of 16 and of 200 completions that wait for their first token.
REQUEST_BYTES: Final = 18 << 10
M_ARENA_MAX: Final = -8  # glibc malloc/malloc.h


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The devices of the installed llama.cpp, and resident bytes of a worker without a model; None: not measured."""

    devices: tuple[Device, ...]
    base_bytes: int | None = None
    base_file_bytes: int | None = None


@functools.cache
def find() -> Found:
    """Ask a child, so that llama.cpp stays out of this process."""
    try:
        done = subprocess.run(
            module_command("server.engine.worker.look"), env=environment(), capture_output=True, timeout=60, check=True
        )
    except (subprocess.SubprocessError, OSError):
        return Found(devices=available_devices(load_library()))  # says what is wrong
    answer = json.loads(done.stdout)
    devices, kib = tuple(Device(**fields) for fields in answer["devices"]), answer["resident_kib"]
    if not kib:
        return Found(devices=devices)
    return Found(devices=devices, base_bytes=sum(kib.values()) << 10, base_file_bytes=kib["File"] << 10)


def http_bytes(n_threads: int, n_requests: int) -> int:
    """What the HTTP side holds beside what it has at start: threads that are there, and requests at a time so far."""
    return n_threads * THREAD_BYTES + n_requests * REQUEST_BYTES


def share_heap() -> None:
    """Have all threads of this process share one heap of malloc's, from here on; does nothing where it is not glibc's.

    Some have one of their own else, with room of its own at the end. Python's lock lets them in one by one anyway.
    """
    with suppress(OSError, AttributeError, TypeError):  # another system, or another library
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)
