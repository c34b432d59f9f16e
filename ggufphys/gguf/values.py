"""How are GGUF metadata values laid out, and how is a long array left undecoded until somebody asks?

A vocabulary of 262,144 tokens is 16 MB of metadata; `inspect` needs none of it. Arrays are therefore found and stepped
over, and decoded on access from the buffer they lie in.

Source: llama.cpp 0c1e570 ggml/include/gguf.h, gguf_type; the layout is specified in ggml's docs/gguf.md.
"""

import operator
import struct
from collections.abc import Iterator, Sequence
from enum import IntEnum
from io import BytesIO
from itertools import islice, repeat
from mmap import mmap
from typing import Final, Literal, overload

from ggufphys.errors import GGUFError
from ggufphys.frozen import dataclass

Buffer = bytes | mmap | memoryview
ByteOrder = Literal["little", "big"]
Scalar = int | float | bool | str
_SHOWN: Final = 3  # elements of an array in its repr


class ValueType(IntEnum):
    """Type numbers of metadata values in the file."""

    UINT8 = 0
    INT8 = 1
    UINT16 = 2
    INT16 = 3
    UINT32 = 4
    INT32 = 5
    FLOAT32 = 6
    BOOL = 7
    STRING = 8
    ARRAY = 9
    UINT64 = 10
    INT64 = 11
    FLOAT64 = 12


# struct's format character of each fixed-size type
FORMATS: Final[dict[ValueType, str]] = {
    ValueType.UINT8: "B",
    ValueType.INT8: "b",
    ValueType.UINT16: "H",
    ValueType.INT16: "h",
    ValueType.UINT32: "I",
    ValueType.INT32: "i",
    ValueType.FLOAT32: "f",
    ValueType.BOOL: "?",
    ValueType.UINT64: "Q",
    ValueType.INT64: "q",
    ValueType.FLOAT64: "d",
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class GGUFArray(Sequence[Scalar]):
    """An array value, still in the file: `len()` is free, elements are decoded when iterated or indexed.

    It is a sequence: slices are tuples. Numbers are found at once; a string is stepped to, so who wants many iterates.

    Raises:
        GGUFError: on access, when the file was changed meanwhile.
    """

    element_type: ValueType
    length: int
    offset: int  # of the first element, from the start of the buffer
    nbytes: int  # of all elements, strings' lengths among them
    byte_order: ByteOrder
    length_format: str  # "I" in GGUF v1, "Q" since v2: the width of a string's length
    key: str
    buffer: Buffer

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Scalar]:
        if self.element_type is not ValueType.STRING:
            yield from self._fixed(0, self.length)
            return
        yield from map(text_of, self.iter_bytes())

    @overload
    def __getitem__(self, index: int) -> Scalar: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Scalar, ...]: ...

    def __getitem__(self, index: int | slice) -> Scalar | tuple[Scalar, ...]:
        if isinstance(index, slice):
            return self._at(range(self.length)[index])
        try:
            position = operator.index(index)
        except TypeError:
            wrong = f"{type(index).__name__} {index!r}"
            raise TypeError(f"key {self.key!r}: indexed by whole numbers and slices, not by {wrong}") from None
        if not -self.length <= position < self.length:
            raise IndexError(f"key {self.key!r}: index {position} of an array of {self.length}")
        return self._at(range(position % self.length, position % self.length + 1))[0]

    def __repr__(self) -> str:
        try:
            if self.element_type is ValueType.STRING:
                first = [repr(raw.decode(errors="replace")) for raw in islice(self.iter_bytes(), _SHOWN)]
            else:
                first = [repr(value) for value in self[:_SHOWN]]
        except ValueError:  # the file is closed
            first = []
        shown = ", ".join([*first, *(["..."] if self.length > len(first) else [])])
        return f"<GGUFArray {self.key}: {self.length:,} x {self.element_type.name} [{shown}]>"

    def _at(self, positions: range) -> tuple[Scalar, ...]:
        """The elements at some positions, in their order."""
        if not positions:
            return ()
        ascending = positions if positions.step > 0 else positions[::-1]
        first, last = ascending[0], ascending[-1]
        found: tuple[Scalar, ...]
        if self.element_type is not ValueType.STRING:
            found = self._fixed(first, last + 1 - first)[:: ascending.step]
        else:
            found = tuple(map(text_of, islice(self.iter_bytes(), first, last + 1, ascending.step)))
        return found if positions.step > 0 else found[::-1]

    def iter_bytes(self) -> Iterator[bytes]:
        """The elements of a string array as they lie in the file, undecoded."""
        length_struct = struct.Struct(_prefix(self.byte_order) + self.length_format)
        position = self.offset
        for _ in range(self.length):
            try:
                (nbytes,) = length_struct.unpack_from(self.buffer, position)
            except (struct.error, OverflowError):
                raise self._changed() from None
            position += length_struct.size
            yield bytes(self.buffer[position : position + nbytes])
            position += nbytes

    def all_bytes(self) -> list[bytes]:
        """All of these at once, which takes two fifths of the time."""
        read = BytesIO(self.buffer[self.offset : self.offset + self.nbytes]).read
        length_struct = struct.Struct(_prefix(self.byte_order) + self.length_format)
        size, unpack = length_struct.size, length_struct.unpack
        try:
            return [read(unpack(read(size))[0]) for _ in repeat(None, self.length)]
        except (struct.error, OverflowError):
            raise self._changed() from None

    def _changed(self) -> GGUFError:
        """Strings that were stepped over once do not end where they ended then: somebody wrote into the mapped file."""
        return GGUFError(f"key {self.key!r}: its strings are not where they were: the file was changed meanwhile")

    def _fixed(self, first: int, count: int) -> tuple[Scalar, ...]:
        character = FORMATS[self.element_type]
        position = self.offset + first * struct.calcsize("=" + character)
        return struct.unpack_from(f"{_prefix(self.byte_order)}{count}{character}", self.buffer, position)


Value = Scalar | GGUFArray


def text_of(raw: bytes | memoryview) -> str:
    r"""A string as text, as far as llama.cpp has it: a zero byte ends it, bytes that are not UTF-8 are shown as `\xe9`.

    Source: llama.cpp 0c1e570 ggml/src/gguf.cpp, gguf_get_key, gguf_get_val_str, gguf_get_arr_str: const char *.
    """
    return str(raw, "utf-8", "backslashreplace").partition("\0")[0]


def _prefix(byte_order: ByteOrder) -> str:
    return "<" if byte_order == "little" else ">"
