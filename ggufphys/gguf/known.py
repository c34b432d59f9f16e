"""Has this vocabulary been stepped over before? Files of one family repeat it byte for byte.

Stepping over 150,000 strings takes ten milliseconds, comparing their bytes with known ones less than one: what makes
a folder of a hundred files quick.
"""

from collections.abc import Hashable
from typing import Final

from ggufphys.gguf.values import Buffer

MAX_ARRAYS: Final = 12  # some MB each; files of one family lie beside each other
MIN_STRINGS: Final = 1000
_START_BYTES: Final = 256  # compared first, so that another vocabulary costs nothing


class KnownArrays:
    """The bytes of string arrays, by what is known in front of them: key, number of strings, their layout."""

    def __init__(self) -> None:
        self._arrays: list[tuple[Hashable, bytes]] = []

    @staticmethod
    def keeps(count: int) -> bool:
        """Are arrays of so many strings kept? Shorter ones are stepped over as quickly."""
        return count >= MIN_STRINGS

    def length_at(self, buffer: Buffer, start: int, kind: Hashable) -> int | None:
        """How many bytes the array of this kind at `start` has, if it is one of those known."""
        for index, (known_kind, known) in enumerate(self._arrays):
            if (
                known_kind == kind
                and buffer[start : start + _START_BYTES] == known[:_START_BYTES]
                and buffer[start : start + len(known)] == known
            ):
                self._arrays.append(self._arrays.pop(index))  # used last, forgotten last
                return len(known)
        return None

    def remember(self, buffer: Buffer, start: int, end: int, kind: Hashable) -> None:
        """Keep the bytes of an array."""
        self._arrays.append((kind, bytes(buffer[start:end])))
        del self._arrays[:-MAX_ARRAYS]
