"""Is each text of a vocabulary there once? Told from bytes as they lie, where these can tell, without a list of texts.

A text below 256 bytes lies behind a byte with its length and seven zeros. With every length below 32 written as a 1,
the 1 and zeros before a text are the same for nearly all, and `bytes.split` finds what lies between.
"""

from typing import Final

from ggufphys.gguf import GGUFArray
from ggufphys.gguf.values import ValueType

_ZEROS: Final = bytes(4)  # of the seven
_SHORT: Final = bytes([1])
_MARKED: Final = bytes(1 if 0 < byte < 32 else byte for byte in range(256))
_SEPARATOR: Final = _SHORT + _ZEROS
_REST: Final = 3  # zeros that are left of a length, in front of its text
_LONGEST: Final = 254
_LONGER: Final = _REST + 31  # a part that is longer has texts of 32 bytes and more in it


def are_distinct(array: GGUFArray) -> bool:
    """Certainly no string is there twice; False: not known.

    Each length has a run of four zeros in it. Where there are as many runs as strings, the texts have none: a length
    of 0 would have two, too. And where no more than 254 bytes lie between two runs, no text is longer. So what lies
    between the lengths are the texts. Control characters count as one another: texts that differ even so are distinct.
    """
    if array.element_type is not ValueType.STRING or array.length_format != "Q" or array.byte_order != "little":
        return False
    raw = bytes(array.buffer[array.offset : array.offset + array.nbytes])
    if raw.count(_ZEROS) != len(array):
        return False
    parts = raw.translate(_MARKED).split(_SEPARATOR)
    texts = set(parts)
    if len(texts) != len(parts):
        return False
    for part in [part for part in parts if len(part) > _LONGER]:
        texts.discard(part)
        *pieces, last = part.split(_ZEROS)  # each with the length of the next behind it
        texts.update(piece[:-1] for piece in pieces)
        texts.add(last)
        if max(map(len, (*pieces, last))) > _REST + _LONGEST:
            return False
    return len(texts) == len(array) + 1  # and what lies before the first: nothing, or its length


__all__ = ["are_distinct"]
