"""Paths as text, where a process starts: `pathlib` takes milliseconds to import, which short answers do without."""

import os
from collections.abc import Sequence


def plain(path: str | os.PathLike[str]) -> str:
    """A path's text as `pathlib` writes it: `a/b` for `./a//b/`."""
    text = os.fspath(path)
    if os.name == "posix" and all(part not in ("", ".") for part in text.removeprefix("/").split("/")):
        return text
    from pathlib import Path  # what few paths need

    return str(Path(text))


def is_there(path: str) -> bool:
    """Is there a file or a folder?"""
    return os.path.exists(path)  # noqa: PTH110


def is_file(path: str) -> bool:
    """Is it a file?"""
    return os.path.isfile(path)  # noqa: PTH113


def is_folder(path: str) -> bool:
    """Is it a folder?"""
    return os.path.isdir(path)  # noqa: PTH112


def last_part(path: str) -> str:
    """The name that a path ends with."""
    return os.path.basename(path)  # noqa: PTH119


def beside(path: str, name: str) -> str:
    """The file of this name in the folder of another one."""
    return os.path.join(os.path.dirname(path), name)  # noqa: PTH118, PTH120


def names_in(folder: str) -> Sequence[str]:
    """What a folder has; nothing where there is none."""
    try:
        return os.listdir(folder)  # noqa: PTH208
    except OSError:
        return ()


def read_text(path: str, errors: str = "strict") -> str:
    """What a file in UTF-8 has. Raises OSError."""
    with open(path, encoding="utf-8", errors=errors) as file:  # noqa: PTH123
        return file.read()


def cache_home() -> str:
    """Where caches are: `$XDG_CACHE_HOME`, or ~/.cache; empty where nobody is at home.

    A relative one does not count: it would be another place in each folder.

    Source: XDG Base Directory Specification 0.8, "paths set in these environment variables must be absolute".
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(base):  # noqa: PTH117
        return base
    home = os.path.expanduser("~")  # noqa: PTH111
    return "" if home.startswith("~") else f"{home}/.cache"
