"""Is the program on disk still the one that runs? A worker is started from there, and speaks to its parent in objects.

The two must be of one version: fields of an object travel without their names, so others' would be taken for them.
"""

import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

ROOMS: Final = ("ggufphys", "server")  # what a worker is made of
_ROOT: Final = Path(__file__).resolve().parents[3]

Stamps = Mapping[str, tuple[int, int, int]]
"""Files, each with its inode, its size and when it was written."""


def stamps(root: Path = _ROOT) -> Stamps:
    """Our modules, and the interpreter, as they are now."""
    found = {}
    for path in (*_modules(root), os.path.realpath(sys.executable)):
        try:
            s = os.stat(path)  # noqa: PTH116  # thousands of objects less
        except OSError:
            continue
        found[path] = s.st_ino, s.st_size, s.st_mtime_ns
    return found


def _modules(root: Path) -> Iterator[str]:
    for room in ROOMS:
        for folder, _, names in os.walk(root / room):
            yield from (os.path.join(folder, name) for name in names if name.endswith(".py"))  # noqa: PTH118


def replaced(before: Stamps, now: Stamps) -> str:
    """What to tell of a program that is not the same any more; empty if it is."""
    changed = sorted(path for path in before.keys() | now.keys() if before.get(path) != now.get(path))
    if not changed:
        return ""
    others = f" and {len(changed) - 1} other files" if len(changed) > 1 else ""
    return (
        f"the program was replaced while it ran ({changed[0]}{others}), so that no process can be started that belongs "
        "to this one: start the server again"
    )


AT_START: Final = stamps()
"""What this process was started from: read before it can have been replaced, with the modules themselves."""
