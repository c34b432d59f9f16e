"""How is a file written that has its full length and takes no room? Without numpy, which takes longer to import."""

import os
from pathlib import Path

from ggufphys.machine.output import whole_file
from ggufphys.synth.plan import SynthPlan


def write_all(file: int, chunk: memoryview) -> int:
    """Write the chunk whole and return its length; a disk that fills up writes short before it says so."""
    written = 0
    while written < len(chunk):
        written += os.write(file, chunk[written:])
    return written


def write_sparse(plan: SynthPlan, path: Path) -> None:
    """Write the header and a hole of the data's length behind it: weights read as zeros and take no room.

    Raises:
        OutputError: the file cannot be written.
        ValueError: a folder, or in one that is not there.
    """
    with whole_file(path) as partial:
        partial.write_bytes(plan.header)
        os.truncate(partial, plan.file_bytes)
