"""Bytes in, header out: what does one GGUF file declare? Pure parsing of a buffer; opening files is `file.py`'s work.

Everything a hostile file can claim is checked against the bytes that are there before it is believed: a count costs
nothing until its elements are read, and no length makes the reader allocate.

Source: ggml's docs/gguf.md; llama.cpp 0c1e570 ggml/src/gguf.cpp, gguf_init_from_reader (what it refuses, we refuse or
note).
"""

import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from ggufphys.errors import GGUFError, TruncatedError
from ggufphys.frozen import dataclass, field
from ggufphys.gguf.cursor import Cursor
from ggufphys.gguf.strings import step_over
from ggufphys.gguf.tensor_table import TensorInfo, check_layout, read_tensors
from ggufphys.gguf.values import FORMATS, Buffer, ByteOrder, GGUFArray, Scalar, Value, ValueType

if TYPE_CHECKING:
    from ggufphys.gguf.known import KnownArrays

# What is often found under a model's name instead, by its first four bytes.
OTHER_FILES: Final[Mapping[bytes, str]] = {
    b"vers": "perhaps a Git LFS pointer: `git lfs pull` fetches the file",
    b"<!DO": "perhaps a web page: download the file itself",
    b"<htm": "perhaps a web page: download the file itself",
    b"PK\x03\x04": "perhaps a PyTorch checkpoint: llama.cpp's convert_hf_to_gguf.py makes a GGUF of a model",
    b"lmgg": "GGML, the format before GGUF, which llama.cpp no longer reads",
    b"fmgg": "GGMF, a format before GGUF, which llama.cpp no longer reads",
    b"tjgg": "GGJT, a format before GGUF, which llama.cpp no longer reads",
}
MAGIC: Final = b"GGUF"
NEWEST_VERSION: Final = 3
DEFAULT_ALIGNMENT: Final = 32
_VALUE_TYPES: Final = {int(value_type): value_type for value_type in ValueType}


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What one GGUF file declares. `notes` are oddities worth a warning, `value_types` the metadata's types there.

    `table_offset` is where the metadata ends and the tensor table starts, `data_offset` where tensor data does.
    """

    version: int
    byte_order: ByteOrder
    alignment: int
    metadata: Mapping[str, Value]
    value_types: Mapping[str, ValueType]
    tensors: tuple[TensorInfo, ...]
    table_offset: int
    data_offset: int
    notes: tuple[str, ...] = field(default=())

    @property
    def end_offset(self) -> int:
        """Bytes of a whole file: the end of the last tensor whose size is known (without trailing padding)."""
        return self.data_offset + max((t.offset + (t.nbytes or 0) for t in self.tensors), default=0)


def parse_header(buffer: Buffer, label: str, *, shard: int = 0, known: "KnownArrays | None" = None) -> Header:
    """Read magic, metadata and tensor table from the start of `buffer`.

    Args:
        buffer: the file, or a first part of it; arrays keep a reference to it.
        label: the file's name for error messages.
        shard: stored in each TensorInfo.
        known: vocabularies of other files, to be stepped over at once.

    Raises:
        TruncatedError: the buffer ends inside the header (or a count in it claims more than the buffer holds).
        GGUFError: anything else that is not a GGUF.
    """
    cursor = Cursor(buffer, label, known)
    try:
        return _parse(cursor, shard)
    except TruncatedError as error:
        error.metadata = cursor.metadata
        raise
    except (struct.error, OverflowError, MemoryError) as error:  # every read is checked; this is the last line
        raise GGUFError(f"{label}: unreadable header: {error}") from error


def _parse(cursor: Cursor, shard: int) -> Header:
    version = _read_version(cursor)
    n_tensors = cursor.length("the number of tensors")
    n_kv = cursor.length("the number of metadata entries")
    metadata = cursor.metadata
    value_types: dict[str, ValueType] = {}
    for index in range(n_kv):
        key = cursor.string(f"metadata key {index} of {n_kv}")
        if not key:
            raise GGUFError(f"{cursor.label}: metadata key {index} is empty")
        if key in metadata:
            raise GGUFError(f"{cursor.label}: duplicate metadata key {key!r} (entry {index})")
        value_types[key] = value_type = _value_type(cursor, key)
        metadata[key] = _read_value(cursor, key, value_type)
    alignment = _alignment(metadata, cursor.label)
    table_offset = cursor.position
    tensors = read_tensors(cursor, n_tensors, shard)
    data_offset = -(-cursor.position // alignment) * alignment
    notes = check_layout(tensors, alignment, cursor.label)
    if version == 1:
        notes = (*notes, "GGUF v1: llama.cpp no longer loads it; convert it again")
    if cursor.byte_order == "big":
        notes = (*notes, "big-endian: llama.cpp loads it on big-endian machines only")
    return Header(
        version=version,
        byte_order=cursor.byte_order,
        alignment=alignment,
        metadata=metadata,
        value_types=value_types,
        tensors=tensors,
        table_offset=table_offset,
        data_offset=data_offset,
        notes=notes,
    )


def _read_version(cursor: Cursor) -> int:
    start = bytes(cursor.buffer[:4])
    if start != MAGIC[: len(start)]:
        if bytes(cursor.buffer[8:9]) == b"{":  # behind the length of a header in JSON
            start_is = " (perhaps safetensors: llama.cpp's convert_hf_to_gguf.py makes a GGUF of a model)"
            raise GGUFError(f"{cursor.label}: not a GGUF file: it starts with {start!r}, expected {MAGIC!r}{start_is}")
        advice = next((f" ({text})" for first, text in OTHER_FILES.items() if start == first), "")
        raise GGUFError(f"{cursor.label}: not a GGUF file: it starts with {start!r}, expected {MAGIC!r}{advice}")
    cursor.need(4, "the magic")
    cursor.position = 4
    version = cursor.scalar("I", "the version")
    if version & 0xFFFF == 0:  # a small number with its bytes swapped has its low half empty
        cursor.byte_order, cursor.prefix, cursor.position = "big", ">", 4
        version = cursor.scalar("I", "the version")
    if not 1 <= version <= NEWEST_VERSION:
        raise GGUFError(f"{cursor.label}: GGUF version {version}, expected 1 to {NEWEST_VERSION}")
    cursor.length_format = "I" if version == 1 else "Q"
    return version


def _value_type(cursor: Cursor, key: str) -> ValueType:
    number = cursor.scalar("I", f"the type of key {key!r}")
    if number not in _VALUE_TYPES:
        raise GGUFError(f"{cursor.label}: key {key!r} has value type {number}, expected 0 to 12")
    return _VALUE_TYPES[number]


def _read_value(cursor: Cursor, key: str, value_type: ValueType) -> Value:
    if value_type is ValueType.ARRAY:
        return _skip_array(cursor, key)
    if value_type is ValueType.STRING:
        return cursor.string(f"the value of key {key!r}")
    value: Scalar = cursor.scalar(FORMATS[value_type], f"the value of key {key!r}")
    return value


def _skip_array(cursor: Cursor, key: str) -> GGUFArray:
    element_type = _value_type(cursor, key)
    if element_type is ValueType.ARRAY:
        raise GGUFError(f"{cursor.label}: key {key!r} is an array of arrays, which llama.cpp doesn't read")
    length = cursor.length(f"the length of array {key!r}")
    start = cursor.position
    if element_type is ValueType.STRING:
        _skip_known_strings(cursor, length, key)
    else:
        nbytes = length * struct.calcsize("=" + FORMATS[element_type])
        cursor.need(nbytes, f"array {key!r} of {length:,} elements")
        cursor.position += nbytes
    return GGUFArray(
        element_type=element_type,
        length=length,
        offset=start,
        nbytes=cursor.position - start,
        byte_order=cursor.byte_order,
        length_format=cursor.length_format,
        key=key,
        buffer=cursor.buffer,
    )


def _skip_known_strings(cursor: Cursor, count: int, key: str) -> None:
    if cursor.known is None or not cursor.known.keeps(count):
        _skip_strings(cursor, count, key)
        return
    start, kind = cursor.position, (key, count, cursor.prefix, cursor.length_format)
    nbytes = cursor.known.length_at(cursor.buffer, start, kind)
    if nbytes is not None:
        cursor.position += nbytes
        return
    _skip_strings(cursor, count, key)
    cursor.known.remember(cursor.buffer, start, cursor.position, kind)


def _skip_strings(cursor: Cursor, count: int, key: str) -> None:
    layout = struct.Struct(cursor.prefix + cursor.length_format)
    cursor.need(count * layout.size, f"array {key!r} of {count:,} strings")
    position, lacking = step_over(cursor.buffer, cursor.position, count, layout)
    if position > cursor.end or lacking:
        raise TruncatedError(
            f"{cursor.label}: truncated: array {key!r} of {count:,} strings starts at offset {cursor.position:,} "
            f"and goes past the end of the {cursor.end:,} bytes there are",
            needed_bytes=position + lacking * layout.size,  # every string still to come has a length at least
        )
    cursor.position = position


def _alignment(metadata: Mapping[str, Value], label: str) -> int:
    value = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0 or value & (value - 1):
        raise GGUFError(f"{label}: general.alignment is {value!r}, expected a power of two")
    return value


def padded(nbytes: int, alignment: int = DEFAULT_ALIGNMENT) -> int:
    """`nbytes` rounded up to a multiple of `alignment`."""
    return -(-nbytes // alignment) * alignment
