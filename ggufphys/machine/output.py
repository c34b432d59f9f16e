"""How is a file written that is whole, or not there at all?

Until it is whole it lies beside its place, under a name that says which process is at it: what runs that were killed
have left is known by that, and goes when the same file is written again.
"""

import itertools
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from ggufphys.errors import OutputError

_UNFINISHED: Final = re.compile(r"\.(.*)\.(\d+)-\d+\.partial(\..*)?", re.DOTALL)
_numbers = itertools.count()


def unfinished_name(name: str) -> str:
    """What a file is called until it is whole, by one writer; its ending stays, since libraries go by it."""
    return f".{Path(name).stem}.{os.getpid()}-{next(_numbers)}.partial{Path(name).suffix}"


def runs(pid: int) -> bool:
    """Whether there is such a process, as far as can be told: on Windows none is taken to be gone."""
    if os.name != "posix":  # where this question would end it
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # somebody else's
        return True
    return True


def left_unfinished(folder: Path, alive: Callable[[int], bool] = runs) -> Mapping[Path, str]:
    """What had been begun there when its process was killed, and what each would have been called."""
    try:
        found = [(path, _UNFINISHED.fullmatch(path.name)) for path in folder.iterdir()]
    except OSError:  # not there, or not to be listed
        return {}
    return {path: match[1] + (match[3] or "") for path, match in found if match and not alive(int(match[2]))}


@contextmanager
def whole_file(path: Path, *, makes_folder: bool = False, advice: str = "") -> Iterator[Path]:
    """The path to write to, which becomes `path` when the block ends, and is removed when an error ends it.

    It is made at once, so that a place where nothing can be written is told before anything is computed. What is no
    ordinary file (`/dev/stdout`, a pipe) is written itself.

    Raises:
        OutputError: it cannot be written: why, that nothing of it is left, and the `advice`.
        ValueError: a folder, or in one that is not there.
    """
    partial: Path | None = None
    try:
        if path.exists() and not path.is_file():
            if path.is_dir():
                raise ValueError(f"{path} is a folder, expected the name of a file to write")
            yield path
            return
        if makes_folder:
            _make(path.parent)
        elif not path.absolute().parent.is_dir():
            raise ValueError(f"{path}: there is no folder {path.parent} to write it into")
        target = _led_to(path)
        for left, name in left_unfinished(target.parent).items():
            if name == target.name:
                with suppress(OSError):
                    left.unlink()
        partial = target.with_name(unfinished_name(target.name))
        try:
            partial.touch()
            yield partial
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        if error.filename not in (None, *map(str, (path, path.parent, partial))):  # what was read meanwhile
            raise
        said = error.strerror or error
        raise OutputError(f"cannot write {path}: {said}; no part of it is left{advice}") from error


def _led_to(path: Path) -> Path:
    """Of a link what it leads to."""
    try:
        return path.resolve()
    except RuntimeError as error:
        raise OutputError(f"cannot write {path}: it is a link that leads back to itself") from error


def _make(folder: Path) -> None:
    """The folder, and those above it; the error names this one, whichever could not be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        error.filename = str(folder)
        raise


def write_whole(path: Path, text: str) -> None:
    """Write a text so. Raises as `whole_file`."""
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")
