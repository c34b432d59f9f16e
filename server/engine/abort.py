"""How is a decode ended in the middle, without Python being asked after every node of the graph?

llama.cpp asks a callback (`bool f(void *)`) after each node, hundreds of times a step. One in Python would need the
interpreter's lock each time: a prompt of 512 tokens took 52 ms instead of 21 beside one busy Python thread. The C
library's `strlen` is such a function, too: given a string of no characters it returns 0, of one 1, and the callee's
`bool` is the low byte of that. So the string is the flag. Only backends on the host look (CPU, Metal).
"""

import ctypes
import os
import platform
from typing import Any, Final

from server.engine.handles import Context

MACHINES: Final = ("x86_64", "amd64", "aarch64", "arm64")  # a bool is returned in the register of an integer


class AbortFlag:
    """Set, it ends the decode under way and every later one (llama_decode returns 2), until it is cleared."""

    def __init__(self, context: Context) -> None:
        self._flag = ctypes.create_string_buffer(2)
        self.works = os.name == "posix" and platform.machine().lower() in MACHINES
        if self.works:
            api: Any = context.api
            strlen = ctypes.cast(ctypes.CDLL(None).strlen, api.ggml_abort_callback)
            context.callbacks.append(strlen)
            api.llama_set_abort_callback(context.pointer, strlen, ctypes.addressof(self._flag))

    def set(self, wanted: bool) -> None:
        """From any thread."""
        self._flag[0] = b"\x01" if wanted else b"\x00"
