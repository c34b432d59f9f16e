"""Are weights mapped from the file, or read into memory? What the flags leave open, and why so.

A token reads all of them. Memory of the process's own can lie in pages of 2 MiB (`server/engine/llama/huge_pages.py`),
which are looked up faster than a mapped file's of 4 KiB; a file that is overwritten in place does it no harm, either.
But what is mapped can be let go and read again, and a second copy cannot: so weights are read where there is room for
many.
"""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Final

from ggufphys import open_gguf
from ggufphys.machine.host import main_memory
from ggufphys.params import LOAD_MODES, Params
from server.engine.llama.huge_pages import LEAST, can_gather

ROOM: Final = 4  # times the file's size that must be free
READ: Final = "weights are read into memory, into pages of 2 MiB, which are faster (--mmap maps the file)"


def default_load(params: Params, given: Collection[str], path: Path) -> Params:
    """`params` with weights that are read, unless `given` (names of fields) says how, or there is little to be won.

    They are few, memory is not plentiful, it has no larger pages, or they lie on devices.
    """
    if params.devices or _say(given) or not can_gather():
        return params
    with open_gguf(path) as gguf:
        file_bytes = gguf.file_bytes
    is_better = LEAST <= file_bytes <= main_memory().available_bytes // ROOM
    return replace(params, use_mmap=False) if is_better else params


def describe_load(params: Params, given: Collection[str]) -> str:
    """The choice in words; empty where it is the flags' own, or llama-server's default."""
    return READ if params.load_mode == "none" and not _say(given) else ""


def _say(given: Collection[str]) -> bool:
    """Whether flags say how weights are loaded."""
    return any(name in given for fields in LOAD_MODES.values() for name in fields)
