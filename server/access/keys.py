"""Who may use the server? API keys, which fail closed: one that was asked for and is empty is an error, not no key."""

import hashlib
import hmac
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from ggufphys.units import read_text
from server.journal import warn

COMMENT: Final = "#"
ID_LENGTH: Final = 8


class Keys:
    """The keys that open the server; none: it is open to all. Any thread may ask while they are replaced."""

    def __init__(self, keys: tuple[str, ...] = ()) -> None:
        self._keys = keys

    def __bool__(self) -> bool:
        return bool(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def replace(self, keys: tuple[str, ...]) -> None:
        """From now on these open it."""
        self._keys = keys

    def match(self, given: str) -> str:
        """The id of the key that was given, empty if it is none. The time taken tells nothing of the keys."""
        found = ""
        for key in self._keys:
            if hmac.compare_digest(given.encode(), key.encode()):
                found = key_id(key)
        return found


def key_id(key: str) -> str:
    """What stands for a key in logs and limits: a few digits of its hash."""
    return hashlib.sha256(key.encode()).hexdigest()[:ID_LENGTH]


def read_keys(given: Sequence[str], file: Path | None) -> tuple[str, ...]:
    """The keys of --api-key, which may hold several by commas, and --api-key-file, whose lines with # are comments.

    Raises:
        ValueError: a flag, a variable or a file without a key, which would leave the server open; the file cannot be
            read.
    """
    keys: list[str] = []
    for each in given:
        parts = [key.strip() for key in each.split(",")]
        if not any(parts):
            raise ValueError(
                "an API key was asked for, and it is empty (--api-key, or LLAMA_API_KEY in the environment): set it, "
                "or leave both out for a server that asks for none"
            )
        keys += parts
    if file is not None:
        try:
            lines = [line.strip() for line in read_text(file).splitlines()]
        except (OSError, ValueError) as error:
            what = f"{file}: {error.strerror}, expected a text" if isinstance(error, OSError) else error
            raise ValueError(f"--api-key-file {what} with a key on each line") from None
        in_file = [line for line in lines if line and not line.startswith(COMMENT)]
        if not in_file:
            raise ValueError(f"{file} has no API key in it, expected one on each line")
        keys += in_file
    return tuple(dict.fromkeys(filter(None, keys)))


def reload_keys(all_keys: Iterable[Keys], given: Sequence[str], file: Path) -> None:
    """Read the file of keys again, for one model or several; one that has none, or cannot be read, changes nothing."""
    try:
        found = read_keys(given, file)
    except ValueError as error:
        warn(f"warning: the API keys stay as they are: {error}")
        return
    for keys in all_keys:
        keys.replace(found)
    warn(f"{file} has been read again: {len(found)} API keys")
