"""What do the server's processes hold beside the model? The engine's before it loads one, and the HTTP side's threads.

What can be measured before anything is loaded is: a child does what the worker does, up to the model.
"""

import functools
import json
import os
import subprocess
from dataclasses import dataclass
from typing import Final

from ggufphys.machine.children import environment, module_command
from ggufphys.params import Device
from server.engine.devices import available_devices
from server.engine.library import load_library

# Source: glibc malloc/arena.c, new_heap, and malloc.c, DEFAULT_TOP_PAD: what an arena's heap begins with;
# arena_get2: at most eight arenas a core.
ARENA_BYTES: Final = 132 << 10
ARENAS_EACH_CORE: Final = 8
# Pages of its stack that a thread of Python's has written before it is given work. Measured on Linux x86-64, CPython
# 3.11: RssAnon of 16 and of 400 waiting threads.
STACK_BYTES: Final = 16 << 10
# What a request under way takes beside, once: its thread's stack as deep as it goes, the answer's objects. Measured
# likewise: RssAnon, less arenas, of 16 and of 200 completions that wait for their first token.
REQUEST_BYTES: Final = 18 << 10


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
            module_command("server.engine.look"), env=environment(), capture_output=True, timeout=60, check=True
        )
    except (subprocess.SubprocessError, OSError):
        return Found(devices=available_devices(load_library()))  # says what is wrong
    answer = json.loads(done.stdout)
    devices, kib = tuple(Device(**fields) for fields in answer["devices"]), answer["resident_kib"]
    if not kib:
        return Found(devices=devices)
    return Found(devices=devices, base_bytes=sum(kib.values()) << 10, base_file_bytes=kib["File"] << 10)


def http_bytes(n_threads: int) -> int:
    """What the HTTP side's threads will hold: their stacks, and the heaps that malloc gives them."""
    arenas = min(n_threads, ARENAS_EACH_CORE * (os.cpu_count() or 1))
    return n_threads * STACK_BYTES + arenas * ARENA_BYTES
