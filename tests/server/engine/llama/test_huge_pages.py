"""Which blocks of memory become huge pages, and that nothing grows by it."""

import mmap
import os
import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.engine.llama.huge_pages import AT_ONCE, BLOCK, LEAST, can_gather, mappings, whole

PAGE = 4096
N_PAGES = BLOCK // PAGE

MAPS = "".join(
    f"{mapping:<73}{path}\n"
    for mapping, path in (
        ("10000000-10400000 rw-p 00000000 00:00 0", ""),
        ("20100000-22300000 rw-p 00000000 00:00 0", ""),
        ("30000000-34000000 r--p 00000000 00:00 0", ""),
        ("40000000-44000000 rw-p 00000000 00:00 0", "[heap]"),
        ("50000000-54000000 rw-p 00000000 fe:00 123", "/models/a.gguf"),
    )
)


def test_mappings() -> None:
    """Large, private, writable, of no file and no heap; whole blocks alone."""
    assert list(mappings(MAPS)) == [(0x20200000, 0x22200000)]
    assert LEAST <= 0x22200000 - 0x20200000


@given(st.lists(st.sampled_from((-1, -1, -1, 0, 1, N_PAGES - 1)), max_size=3 * AT_ONCE))
def test_whole(holes: list[int]) -> None:
    """Every block without a hole, once, in order, few at a time; none with one."""
    resident = b"".join(
        b"\x01" * N_PAGES if hole < 0 else b"\x81" * hole + b"\x80" + b"\x01" * (N_PAGES - hole - 1) for hole in holes
    )
    found = list(whole(resident, PAGE))

    assert all(0 < end - start <= AT_ONCE * BLOCK for start, end in found)
    blocks = [at for start, end in found for at in range(start // BLOCK, end // BLOCK)]
    assert blocks == [at for at, hole in enumerate(holes) if hole < 0]


@pytest.mark.skipif(sys.platform != "linux" or mmap.PAGESIZE != PAGE, reason="Linux with pages of 4 KiB alone")
def test_gather() -> None:
    """What is there stays what it was, and the process holds no more than before; it may have huge pages then."""
    script = (
        "import mmap, re\n"
        "from pathlib import Path\n"
        "from server.engine.llama.huge_pages import gather\n"
        "def kib(name):\n"
        "    text = Path('/proc/self/smaps_rollup').read_text()\n"
        "    return int(re.search(name + r':\\s+(\\d+) kB', text)[1])\n"
        "room = mmap.mmap(-1, 40 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)\n"
        "room[: 24 << 20] = bytes(range(256)) * (24 << 12)\n"
        "before = kib('Rss')\n"
        "n = gather()\n"
        "print(n >> 10, kib('AnonHugePages'), kib('Rss') - before)\n"
        "assert room[: 24 << 20] == bytes(range(256)) * (24 << 12)\n"
        "assert not any(room[24 << 20 :][::4096])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    asked, huge, grown = map(int, re.findall(r"-?\d+", done.stdout))

    assert huge >= asked  # 0 where the kernel is older, or has no room in one piece
    assert grown < 1024


@pytest.mark.skipif(sys.platform != "linux" or mmap.PAGESIZE != PAGE, reason="Linux with pages of 4 KiB alone")
def test_can_gather() -> None:
    """What is asked before weights are read: the kernel is, of a page that is there, and changes nothing."""
    release = tuple(map(int, os.uname().release.split(".")[:2]))
    assert not can_gather() or release >= (6, 1)
