"""How is a file written that is whole, or not there at all?"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ggufphys.errors import OutputError


@contextmanager
def whole_file(path: Path, *, makes_folder: bool = False) -> Iterator[Path]:
    """The path to write to, which becomes `path` when the block ends, and is removed when an error ends it.

    It is made at once, so that a place where nothing can be written is told before anything is computed. What is no
    ordinary file (`/dev/stdout`, a pipe) is written itself.

    Raises:
        OutputError: it cannot be written: why, and that nothing of it is left.
        ValueError: a folder, or in one that is not there.
    """
    try:
        if path.exists() and not path.is_file():
            if path.is_dir():
                raise ValueError(f"{path} is a folder, expected the name of a file to write")
            yield path
            return
        if makes_folder:
            path.parent.mkdir(parents=True, exist_ok=True)
        elif not path.absolute().parent.is_dir():
            raise ValueError(f"{path}: there is no folder {path.parent} to write it into")
        target = path.resolve()  # of a link what it leads to
        partial = target.with_name(f".{target.stem}.{os.getpid()}.partial{target.suffix}")
        try:
            partial.touch()
            yield partial
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}; no part of it is left") from error


def write_whole(path: Path, text: str) -> None:
    """Write a text so. Raises as `whole_file`."""
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")
