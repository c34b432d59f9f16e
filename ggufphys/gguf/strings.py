"""Where does an array of strings end? Each has to be stepped over, and a vocabulary has half a million.

A string is its length in eight bytes and then itself. Nearly all are short, so a regular expression steps over many at
once: a choice of lengths, each followed by so many bytes, in half of the time that a loop takes. It matches nothing
that the loop would read otherwise; where it does not match, the loop goes on.
"""

import re
import struct
from functools import cache
from itertools import repeat
from operator import length_hint
from typing import Final

from ggufphys.gguf.values import Buffer

MANY: Final = 30_000  # strings, for which making the expression pays
_SHORT: Final = 48  # bytes that longer strings have at least
_COMMON: Final = 7  # bytes of many strings: lengths near this are tried first
_AT_ONCE: Final = 64


def step_over(buffer: Buffer, position: int, count: int, layout: struct.Struct) -> tuple[int, int]:
    """The position behind `count` strings, whose lengths have this layout, and how many the buffer was too short for.

    Where it is too short for a string's length, the position is at least its end; a last string may go past it.
    """
    if count < MANY or layout.format != "<Q":
        return _one_by_one(buffer, position, count, layout)
    match = _short_strings().match
    while count >= _AT_ONCE:
        if found := match(buffer, min(position, len(buffer))):
            position, lacking = found.end(), 0
        else:
            position, lacking = _one_by_one(buffer, position, _AT_ONCE, layout)
        count -= _AT_ONCE - lacking
        if lacking:
            return position, count
    return _one_by_one(buffer, position, count, layout)


def _one_by_one(buffer: Buffer, position: int, count: int, layout: struct.Struct) -> tuple[int, int]:
    unpack_from, size = layout.unpack_from, layout.size
    remaining = repeat(None, count)
    try:
        for _ in remaining:
            position += unpack_from(buffer, position)[0] + size
    except (struct.error, OverflowError):  # no room for the next length: the last string ended past the buffer
        return max(position, len(buffer)), length_hint(remaining) + 1
    return position, 0


@cache
def _short_strings() -> re.Pattern[bytes]:
    """Possessive throughout: there is one way to read it."""
    by_frequency = sorted(range(_SHORT), key=lambda nbytes: abs(nbytes - _COMMON))
    lengths = (re.escape(bytes([nbytes])) + bytes(7) + b".{%d}+" % nbytes for nbytes in by_frequency)
    return re.compile(b"(?s:%b){%d}+" % (b"|".join(lengths), _AT_ONCE))
