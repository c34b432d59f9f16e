"""How does a new file take an old one's place whole, or leave no trace?"""

import os
from pathlib import Path
from typing import Final

from ggufphys.synth.plan import SynthPlan


class Replacing:
    """A file descriptor for a file that becomes `path` when the block ends, and is removed when an error ends it."""

    def __init__(self, path: Path) -> None:
        self.path: Final = path
        self.partial: Final = path.with_name(f".{path.name}.{os.getpid()}.partial")

    def __enter__(self) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0)
        self.file = os.open(self.partial, flags, 0o666)
        return self.file

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        os.close(self.file)
        if error is None:
            self.partial.replace(self.path)
        else:
            self.partial.unlink()


def write_all(file: int, chunk: memoryview) -> int:
    """Write the chunk whole and return its length; a disk that fills up writes short before it says so."""
    written = 0
    while written < len(chunk):
        written += os.write(file, chunk[written:])
    return written


def write_sparse(plan: SynthPlan, path: Path) -> None:
    """Write the header and a hole of the data's length behind it: weights read as zeros and take no room.

    Raises:
        OSError: the file cannot be written.
    """
    with Replacing(path) as file:
        write_all(file, memoryview(plan.header))
        os.truncate(file, plan.file_bytes)
