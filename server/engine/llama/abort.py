"""How is a decode ended in the middle, and does it get on? Python is not asked after every node of the graph.

llama.cpp asks a callback (`bool f(void *)`) after each node, hundreds of times a step. One in Python would need the
interpreter's lock each time: a prompt of 512 tokens took 52 ms instead of 21 beside one busy Python thread. The C
library has such functions, too; the callee's `bool` is the low byte of what they return. Only backends on the host look
(CPU, Metal).

- `sem_post`, where unnamed semaphores are (Linux): it counts the nodes and returns 0, until the count is the largest
  there can be; then it returns -1 and leaves it. So the count is both flag and sign of life.
- `strlen`, elsewhere: given a string of no characters it returns 0, of one 1. So the string is the flag.
"""

import ctypes
import os
import platform
import sys
from typing import Any, Final

from server.engine.llama.handles import Context

MACHINES: Final = ("x86_64", "amd64", "aarch64", "arm64")  # a bool is returned in the register of an integer
N_MAX: Final = 2**31 - 1  # SEM_VALUE_MAX of glibc and musl
SEM_BYTES: Final = 64  # a sem_t has 32 (glibc's and musl's, with 64 bits)


class AbortFlag:
    """Set, it ends the decode under way and every later one (llama_decode returns 2), until it is cleared."""

    def __init__(self, context: Context) -> None:
        self.works = os.name == "posix" and platform.machine().lower() in MACHINES
        self.counts = self.works and sys.platform == "linux"
        self._memory = ctypes.create_string_buffer(SEM_BYTES)
        if self.works:
            libc: Any = ctypes.CDLL(None)
            self._init, self._value = libc.sem_init, libc.sem_getvalue
            self.set(False)
            self._function = libc.sem_post if self.counts else libc.strlen
        self.use(context)

    def use(self, context: Context) -> None:
        """Have a context ask it, too."""
        if not self.works:
            return
        api: Any = context.api
        callback = ctypes.cast(self._function, api.ggml_abort_callback)
        context.callbacks.append(callback)
        context.kept.append(self._memory)
        api.llama_set_abort_callback(context.pointer, callback, ctypes.addressof(self._memory))

    def set(self, wanted: bool) -> None:
        """From any thread. Nodes are counted from 0 again."""
        if self.counts:
            self._init(self._memory, 0, N_MAX if wanted else 0)
        else:
            self._memory[0] = b"\x01" if wanted else b"\x00"

    @property
    def n_nodes(self) -> int | None:
        """Nodes since it was cleared; None: they are not counted. From any thread."""
        if not self.counts:
            return None
        found = ctypes.c_int(0)
        self._value(self._memory, ctypes.byref(found))
        return found.value
