"""Numbers and strings of one file, read one after the other, and never past its end.

Source: ggml's docs/gguf.md. GGUF v1 wrote 32-bit counts and lengths; v2 made them 64-bit; v3 allowed big-endian files.
"""

import struct
from functools import cache
from typing import TYPE_CHECKING

from ggufphys.errors import TruncatedError
from ggufphys.gguf.values import Buffer, ByteOrder, Value, text_of

if TYPE_CHECKING:
    from ggufphys.gguf.known import KnownArrays


class Cursor:
    """Where in one file's bytes reading stands, and how numbers lie there. `label` is the file's name for errors."""

    __slots__ = ("buffer", "byte_order", "end", "known", "label", "length_format", "metadata", "position", "prefix")

    def __init__(self, buffer: Buffer, label: str, known: "KnownArrays | None") -> None:
        self.buffer = buffer
        self.known = known
        self.label = label
        self.position = 0
        self.end = len(buffer)
        self.byte_order: ByteOrder = "little"
        self.prefix = "<"
        self.length_format = "Q"
        self.metadata: dict[str, Value] = {}  # as far as it was read

    def need(self, nbytes: int, what: str) -> None:
        """Check that `nbytes` more are there."""
        if nbytes > self.end - self.position:
            raise TruncatedError(
                f"{self.label}: truncated: {what} at offset {self.position:,} needs {nbytes:,} bytes, "
                f"{self.end - self.position:,} are left of {self.end:,}",
                needed_bytes=self.position + nbytes,
            )

    def numbers(self, characters: str, what: str) -> tuple[int, ...]:
        """Numbers of struct's types `characters`, one behind the other."""
        layout = layout_of(self.prefix + characters)
        if layout.size > self.end - self.position:
            self.need(layout.size, what)
        values = layout.unpack_from(self.buffer, self.position)
        self.position += layout.size
        return values

    def scalar(self, character: str, what: str) -> int:
        """One number."""
        return self.numbers(character, what)[0]

    def length(self, what: str) -> int:
        """A count or a length: 32 bits in GGUF v1, 64 since."""
        return self.scalar(self.length_format, what)

    def string(self, what: str) -> str:
        """A length-prefixed string."""
        nbytes = self.length(f"the length of {what}")
        self.need(nbytes, what)
        start = self.position
        self.position += nbytes
        return text_of(bytes(self.buffer[start : self.position]))


@cache
def layout_of(characters: str) -> struct.Struct:
    """How numbers of struct's types lie, made once."""
    return struct.Struct(characters)
