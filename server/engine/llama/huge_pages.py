"""Weights in pages of 2 MiB: a token reads all of them, so in pages of 4 KiB most addresses must be looked up.

glibc asks for no such pages by itself, and most distributions give them only to those who ask. What is in memory whole
is gathered when the model is there, so that it holds no more than before: blocks with a hole (a context's cache that
was never written, buffers for larger batches) stay as they are. A mapped file's pages are the kernel's, and are left.

Linux 6.1 or newer; elsewhere nothing is done.
"""

import ctypes
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

MAPS: Final = Path("/proc/self/maps")
BLOCK: Final = 2 << 20  # bytes of a huge page, where pages have 4 KiB
LEAST: Final = 16 << 20  # bytes of a mapping that is worth it
AT_ONCE: Final = 16  # blocks that the kernel is asked for in one call, which nothing interrupts: some 0.1 s
MADV_COLLAPSE: Final = 25  # include/uapi/asm-generic/mman-common.h, which mmap lacks
_ANONYMOUS: Final = re.compile(r"([0-9a-f]+)-([0-9a-f]+) rw-p 0+ 00:00 0\s*$")
_LOWEST_BIT: Final = bytes((0, 1)) * 128

Range = tuple[int, int]
"""Addresses, the second one behind it."""


def mappings(maps: str) -> Iterator[Range]:
    """The whole blocks in a process's large mappings that stand for no file, by /proc/PID/maps."""
    for line in maps.splitlines():
        if found := _ANONYMOUS.match(line):
            start, end = (int(address, 16) for address in found.groups())
            first, last = -(-start // BLOCK) * BLOCK, end // BLOCK * BLOCK
            if last - first >= LEAST:
                yield first, last


def whole(resident: bytes, page: int) -> Iterator[Range]:
    """Runs of blocks of which all pages are in memory, at most `AT_ONCE` in each, as offsets.

    Args:
        resident: what mincore tells of each page; the lowest bit counts.
        page: bytes of a page.
    """
    n_pages, resident = BLOCK // page, resident.translate(_LOWEST_BIT)
    full = [b"\0" not in resident[at : at + n_pages] for at in range(0, len(resident), n_pages)]
    start = 0
    while start < len(full):
        end = start
        while end < len(full) and full[end] and end - start < AT_ONCE:
            end += 1
        if end > start:
            yield start * BLOCK, end * BLOCK
        start = max(end, start + 1)


def can_gather() -> bool:
    """Whether this system knows of such pages; whether it has any is seen when they are asked for."""
    try:
        madvise: Any = ctypes.CDLL(None).madvise
    except (OSError, AttributeError, TypeError):  # another system
        return False
    # of no bytes at all, which the kernel looks at behind whether it knows what is asked (mm/madvise.c)
    return os.sysconf("SC_PAGESIZE") < BLOCK and not madvise(None, 0, MADV_COLLAPSE)


def gather() -> int:
    """Have what is wholly in memory in huge pages, as far as the kernel can; bytes that are. May take seconds."""
    try:
        found = list(mappings(MAPS.read_text(encoding="utf-8", errors="replace")))
        c: Any = ctypes.CDLL(None)
        madvise, mincore = c.madvise, c.mincore
    except (OSError, AttributeError):  # another system
        return 0
    page = os.sysconf("SC_PAGESIZE")
    if page >= BLOCK:
        return 0
    madvise.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    mincore.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p
    n = 0
    for first, last in found:
        resident = ctypes.create_string_buffer((last - first) // page)
        if mincore(first, last - first, resident):
            continue  # it has gone meanwhile
        for start, end in whole(resident.raw[: (last - first) // page], page):
            if not madvise(first + start, end - start, MADV_COLLAPSE):
                n += end - start
    return n
