"""What do runs leave in the cache, and how is that bounded? The oldest goes when something new needs the room.

What is removed is said. Models that were wanted within the last day stay: another run may want them still.
"""

import os
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

from ggufphys.machine.output import left_unfinished
from ggufphys.paths import cache_home
from ggufphys.units import format_bytes

MOST_BYTES: Final = 8 << 30  # of the bases of quality runs, and of derived models
WANTED_S: Final = 24 * 3600.0
BASES: Final = "base-*.logits"
DERIVED: Final = f"*-{16 * '[0-9a-f]'}.gguf"


def cache_folder() -> Path:
    """Return where derived files live: `$XDG_CACHE_HOME/ggufphys`, else `~/.cache/ggufphys`.

    Raises:
        ValueError: there is neither.
    """
    caches = cache_home()
    if not caches:
        raise ValueError("no home folder is known to keep files in: set HOME, or XDG_CACHE_HOME")
    return Path(caches) / "ggufphys"


def used(path: Path) -> None:
    """Remember that a file was wanted now; when it was written stays as it was."""
    with suppress(OSError):  # a cache that can only be read
        os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))


def make_room(folder: Path, pattern: str, most_bytes: int, *, needed_bytes: int = 0, spared_s: float = 0.0) -> None:
    """Remove the files that were wanted longest ago until those that stay, and what is needed, take so much at most.

    Those that were wanted within the last `spared_s` seconds stay whatever they take.
    """
    left = most_bytes - needed_bytes
    if left < 0:  # what is asked for does not fit by itself, and is refused
        return
    now, gone = time.time(), []
    for path in sorted(folder.glob(pattern), key=_last, reverse=True):
        nbytes = path.stat().st_size
        if nbytes <= left or now - _last(path) < spared_s:
            left -= nbytes
        else:
            gone.append(path)
    _remove(gone, f"to keep to {format_bytes(most_bytes)}")


def remove_unfinished(folder: Path, pattern: str = "*") -> None:
    """Remove what runs that were killed had begun to write."""
    import psutil  # of an extra, which help for a command does not need

    left = left_unfinished(folder, psutil.pid_exists)
    _remove([path for path, name in left.items() if fnmatchcase(name, pattern)], "of runs that were killed")


def _last(path: Path) -> float:
    stat = path.stat()
    return max(stat.st_mtime, stat.st_atime)


def _remove(paths: Iterable[Path], why: str) -> None:
    for path in paths:
        with suppress(OSError):  # another run has removed it, or it is another user's
            nbytes = path.stat().st_size
            path.unlink()
            print(f"ggufphys: removed {path} ({format_bytes(nbytes)}) {why}", file=sys.stderr)
