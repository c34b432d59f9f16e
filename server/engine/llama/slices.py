"""How soon does a thread run that has become ready, where others have all processors? Linux can be told.

Threads of llama.cpp wait for each other hundreds of times a step, some microseconds each, and beside a busy neighbour
one that is woken waits for the rest of that one's time slice, milliseconds. Who asks for shorter slices gets no more of
the processor and runs sooner. Threads take it over from who starts them.

Source: Linux 6.12 kernel/sched/syscalls.c, __setparam_fair (sched_runtime of SCHED_OTHER); kernel/sched/fair.c,
PREEMPT_SHORT. Older kernels take it and do nothing.
"""

import ctypes
import os
import platform
import struct
from contextlib import suppress
from typing import Any, Final

SHORT_NS: Final = 100_000  # the least that may be asked for
USUAL_NS: Final = 0  # as the system has it
SCHED_SETATTR: Final = {"x86_64": 314, "aarch64": 274}  # the call's number; glibc has it from 2.41 on
ATTRIBUTES: Final = "<IIQiIQQQ"  # include/uapi/linux/sched/types.h, struct sched_attr, its first version


def ask(slice_ns: int, thread: int = 0) -> bool:
    """Ask for slices of that length for a thread, by the system's number of it (0: this one); whether it was heard."""
    number = SCHED_SETATTR.get(platform.machine())
    if platform.system() != "Linux" or number is None:
        return False
    with suppress(OSError, AttributeError, TypeError):  # it has ended, or another library
        if os.sched_getscheduler(thread) != os.SCHED_OTHER:  # somebody has decided otherwise
            return False
        niceness, size = os.getpriority(os.PRIO_PROCESS, thread), struct.calcsize(ATTRIBUTES)
        attributes = struct.pack(ATTRIBUTES, size, os.SCHED_OTHER, 0, niceness, 0, slice_ns, 0, 0)
        call: Any = ctypes.CDLL(None).syscall
        return not call(number, thread, attributes, 0)
    return False
