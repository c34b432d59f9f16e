"""A mapped file that is cut short ends a process by SIGBUS; here it ends the command, by a sentence.

What is lacking reads as zeros from then on, so that whoever reads it (numpy, llama.cpp in this process) comes back, and
the main thread's work is ended as by Ctrl-C. Linux alone says which mapping it was; other systems are as before.
"""

import ctypes
import os
import sys
from types import FrameType
from typing import Final

from ggufphys.gguf.lengths import cut_short
from ggufphys.interrupts import CutShort

SA_SIGINFO: Final = 4
ADDRESS_AT: Final = 16  # si_addr in siginfo_t where pointers have 8 bytes: behind three int and their padding
MAP_PRIVATE_FIXED_ANONYMOUS: Final = 0x02 | 0x10 | 0x20

_Handler = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)


class _Action(ctypes.Structure):
    """struct sigaction of glibc and musl."""

    _fields_ = (
        ("handler", _Handler), ("mask", ctypes.c_ubyte * 128), ("flags", ctypes.c_int), ("restorer", ctypes.c_void_p),
    )  # fmt: skip


_KEPT: Final[list[object]] = []  # what the system calls must live as long as the process
_UNREADABLE: Final[list[str]] = []  # files of which a page was lacking


def end_by_a_sentence() -> None:
    """From now on pages that are lacking in mapped files raise `CutShort` in the main thread."""
    if sys.platform != "linux" or sys.maxsize < 1 << 32 or _KEPT:
        return
    import signal
    import threading

    signal.signal(signal.SIGBUS, _raise)  # what `interrupt_main` calls; then the system's part is ours
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long)
    libc.mmap.restype = ctypes.c_void_p

    lock, zeroed = threading.Lock(), list[tuple[int, int]]()

    def lacking(number: int, info: int, context: int) -> None:
        address = ctypes.c_void_p.from_address(info + ADDRESS_AT).value or 0
        with lock:
            end, protection, path = _mapping(address)
            if not path and any(start <= address < until for start, until in zeroed):
                return  # another thread read it at the same time
            page = address - address % os.sysconf("SC_PAGESIZE")
            if not path or libc.mmap(page, end - page, protection, MAP_PRIVATE_FIXED_ANONYMOUS, -1, 0) != page:
                libc.signal(number, None)  # no file's: it comes again, and ends the process
                return
            zeroed.append((page, end))
        _UNREADABLE.append(path)
        _interrupt()

    _KEPT.append(lacking.__code__)
    action = _Action(handler=_Handler(lacking), flags=SA_SIGINFO)
    _KEPT.append(action)
    if libc.sigaction(signal.SIGBUS, ctypes.byref(action), None):
        signal.signal(signal.SIGBUS, signal.SIG_DFL)


def unreadable() -> str:
    """What is to be told if a page was lacking, whether or not somebody caught what was raised; else nothing."""
    if not _UNREADABLE:
        return ""
    return cut_short() or (
        f"{_UNREADABLE[0]}: a page of the mapped file could not be read: was it cut short, or is the disk at fault?"
    )


def _raise(number: int, frame: FrameType | None) -> None:
    while frame is not None:
        if frame.f_code in _KEPT:  # a callback, which drops what is raised in it
            _interrupt()
            return
        frame = frame.f_back
    raise CutShort(unreadable())


def _interrupt() -> None:
    """Let the main thread have its turn, by another that waits for its own: when a callback is over."""
    import _thread  # built in
    import signal

    _thread.start_new_thread(_thread.interrupt_main, (signal.SIGBUS,))


def _mapping(address: int) -> tuple[int, int, str]:
    """The end, protection and file of the mapping there; no file's: an empty path."""
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:  # noqa: PTH123
        for line in maps:
            span, access, _offset, _device, _inode, *path = line.split(maxsplit=5)
            start, end = (int(part, 16) for part in span.split("-"))
            if start <= address < end:
                return end, ("r" in access) | ("w" in access) << 1, path[0].rstrip("\n") if path else ""
    return 0, 0, ""
