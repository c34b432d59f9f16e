"""Was a file cut short while it was read? A command keeps how long each file was when it was mapped.

It does so from its beginning to its end (`kept_lengths`). Whoever calls `open_gguf` in a program of his own is no
command, and nothing is kept for him.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from ggufphys.errors import GGUFError, GGUFPhysError

_kept: list[dict[str, tuple[int, int]]] = []  # inodes and bytes by path, of each block under way


@contextmanager
def kept_lengths() -> Iterator[None]:
    """Keep the lengths of files that are mapped while the block runs, beside those of a block around it.

    Raises:
        GGUFError: the block had an error, and a file was cut short, of which it may have come.
    """
    _kept.append(_kept[-1] if _kept else {})
    try:
        yield
    except (GGUFPhysError, OSError, ValueError) as error:
        if cut := cut_short():
            raise GGUFError(cut) from error
        raise
    finally:
        _kept.pop()


def note(path: str, inode: int, nbytes: int) -> None:
    """A file has been mapped."""
    if _kept:
        _kept[-1][path] = inode, nbytes


def cut_short() -> str:
    """What is to be told of a file that is shorter now than when it was mapped last; nothing where none is."""
    for path, (inode, expected) in list(_kept[-1].items()) if _kept else ():
        try:
            now = os.stat(path)  # noqa: PTH116
        except OSError:  # renamed or removed: what was mapped stays whole
            continue
        if now.st_ino == inode and now.st_size < expected:
            return (
                f"{path}: the file was cut short while it was read: {now.st_size:,} bytes are there, expected "
                f"{expected:,} as before: replace a file by renaming a new one over it"
            )
    return ""
