"""Bytes in, header out: what does one GGUF file declare? Pure parsing of a buffer; opening files is `file.py`'s work.

Everything a hostile file can claim is checked against the bytes that are there before it is believed: a count costs
nothing until its elements are read, and no length makes the reader allocate.

Source: ggml's docs/gguf.md; llama.cpp 0c1e570 ggml/src/gguf.cpp, gguf_init_from_reader (what it refuses, we refuse or
note). GGUF v1 wrote 32-bit counts and lengths; v2 made them 64-bit; v3 allowed big-endian files.
"""

import struct
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Final

from ggufphys.errors import GGUFError, TruncatedError
from ggufphys.frozen import dataclass, field
from ggufphys.gguf.ggml_types import SIZES, GGMLType
from ggufphys.gguf.strings import step_over
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
MAX_DIMS: Final = 4  # GGML_MAX_DIMS
MAX_NAME_BYTES: Final = 63  # GGML_MAX_NAME less the terminator
_TYPES: Final = {int(ggml_type): ggml_type for ggml_type in GGMLType}  # found sooner than by calling the enum
_VALUE_TYPES: Final = {int(value_type): value_type for value_type in ValueType}


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorInfo:
    """One row of the tensor table.

    `ne` is the shape in ggml's order (innermost first), as the file has it; `shape` is numpy's. A type number that the
    pinned ggml does not know stays a plain int, and `nbytes` is then None.
    """

    name: str
    ne: tuple[int, ...]
    ggml_type: GGMLType | int
    offset: int  # from the start of its file's data section
    nbytes: int | None
    shard: int = 0

    @property
    def n_elements(self) -> int:
        """The number of weights."""
        product = 1
        for n in self.ne:
            product *= n
        return product

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape in numpy's order, outermost first."""
        return self.ne[::-1]

    @property
    def type_name(self) -> str:
        """`Q4_K`, or `type 99?` for a number that the pinned ggml does not know."""
        return self.ggml_type.name if isinstance(self.ggml_type, GGMLType) else f"type {self.ggml_type}?"


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
    cursor = _Cursor(buffer, label, known)
    try:
        return _parse(cursor, shard)
    except TruncatedError as error:
        error.metadata = cursor.metadata
        raise
    except (struct.error, OverflowError, MemoryError) as error:  # every read is checked; this is the last line
        raise GGUFError(f"{label}: unreadable header: {error}") from error


class _Cursor:
    """A position in the buffer, and reads that never go past its end."""

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
        layout = _layout(self.prefix + characters)
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
        """A length-prefixed UTF-8 string."""
        nbytes = self.length(f"the length of {what}")
        self.need(nbytes, what)
        start = self.position
        self.position += nbytes
        try:
            return bytes(self.buffer[start : self.position]).decode()
        except UnicodeDecodeError as error:
            raise GGUFError(f"{self.label}: {what} at offset {start:,} is not UTF-8: {error}") from None


@cache
def _layout(characters: str) -> struct.Struct:
    return struct.Struct(characters)


def _parse(cursor: _Cursor, shard: int) -> Header:
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
    tensors = _read_tensors(cursor, n_tensors, shard)
    data_offset = -(-cursor.position // alignment) * alignment
    notes = _check_layout(tensors, alignment, cursor.label)
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


def _read_version(cursor: _Cursor) -> int:
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


def _value_type(cursor: _Cursor, key: str) -> ValueType:
    number = cursor.scalar("I", f"the type of key {key!r}")
    if number not in _VALUE_TYPES:
        raise GGUFError(f"{cursor.label}: key {key!r} has value type {number}, expected 0 to 12")
    return _VALUE_TYPES[number]


def _read_value(cursor: _Cursor, key: str, value_type: ValueType) -> Value:
    if value_type is ValueType.ARRAY:
        return _skip_array(cursor, key)
    if value_type is ValueType.STRING:
        return cursor.string(f"the value of key {key!r}")
    value: Scalar = cursor.scalar(FORMATS[value_type], f"the value of key {key!r}")
    return value


def _skip_array(cursor: _Cursor, key: str) -> GGUFArray:
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


def _skip_known_strings(cursor: _Cursor, count: int, key: str) -> None:
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


def _skip_strings(cursor: _Cursor, count: int, key: str) -> None:
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


def _read_tensors(cursor: _Cursor, n_tensors: int, shard: int) -> tuple[TensorInfo, ...]:
    tensors: dict[str, TensorInfo] = {}
    buffer, length, n_axes = cursor.buffer, _layout(cursor.prefix + cursor.length_format), _layout(cursor.prefix + "I")
    rows = [n_dims * cursor.length_format + "IQ" for n_dims in range(MAX_DIMS + 1)]
    layouts = [_layout(cursor.prefix + row) for row in rows]
    for index in range(n_tensors):
        try:
            start = cursor.position + length.size
            end = start + length.unpack_from(buffer, cursor.position)[0]
            layout = layouts[n_axes.unpack_from(buffer, end)[0]]
            values = layout.unpack_from(buffer, end + n_axes.size)
            name = str(buffer[start:end], "utf-8")
            cursor.position = end + n_axes.size + layout.size
        except (struct.error, OverflowError, IndexError, UnicodeDecodeError):
            name, values = _read_tensor(cursor, f"the name of tensor {index} of {n_tensors}", rows)
        if name in tensors:
            raise GGUFError(f"{cursor.label}: duplicate tensor {name!r} (tensor {index})")
        *dims, type_number, offset = values
        ne = tuple(dims)
        ggml_type, nbytes = _tensor_nbytes(name, ne, type_number, cursor.label)
        tensors[name] = TensorInfo(name=name, ne=ne, ggml_type=ggml_type, offset=offset, nbytes=nbytes, shard=shard)
    return tuple(tensors.values())


def _read_tensor(cursor: _Cursor, what: str, rows: Sequence[str]) -> tuple[str, tuple[int, ...]]:
    """A name, and shape, type and offset, step by step: it says which of them cannot be read."""
    name = cursor.string(what)
    n_dims = cursor.scalar("I", f"the dimensions of tensor {name!r}")
    if n_dims > MAX_DIMS:
        raise GGUFError(f"{cursor.label}: tensor {name!r} has {n_dims} dimensions, expected at most {MAX_DIMS}")
    return name, cursor.numbers(rows[n_dims], f"the shape, type and offset of tensor {name!r}")


def _tensor_nbytes(name: str, ne: tuple[int, ...], type_number: int, label: str) -> tuple[GGMLType | int, int | None]:
    n_elements = 1
    for n in ne:
        n_elements *= n
    if n_elements >= 1 << 63 or max(ne, default=0) >= 1 << 63:
        raise GGUFError(f"{label}: tensor {name!r} of shape {ne} has more than 2^63 elements")
    ggml_type = _TYPES.get(type_number)
    if ggml_type is None:
        return type_number, None
    size = SIZES[ggml_type]
    row = ne[0] if ne else 1
    if row % size.block_size:
        raise GGUFError(
            f"{label}: tensor {name!r}: rows of {row} elements are not whole blocks of {ggml_type.name} "
            f"({size.block_size} elements)"
        )
    return ggml_type, n_elements // size.block_size * size.type_size


def _check_layout(tensors: tuple[TensorInfo, ...], alignment: int, label: str) -> tuple[str, ...]:
    """Refuse offsets that are misaligned or overlap; note what llama.cpp refuses but can still be read."""
    gap: TensorInfo | None = None
    previous: TensorInfo | None = None
    end, end_is_known = 0, True
    for tensor in sorted(tensors, key=lambda t: (t.offset, t.nbytes or 0)):
        if tensor.offset % alignment:
            raise GGUFError(
                f"{label}: tensor {tensor.name!r} has offset {tensor.offset}, expected a multiple of {alignment}"
            )
        if tensor.offset < end:
            other = "the start of the data" if previous is None else f"tensor {previous.name!r}"
            raise GGUFError(
                f"{label}: tensor {tensor.name!r} at offset {tensor.offset:,} overlaps {other}, which ends at {end:,}"
            )
        if end_is_known and gap is None and tensor.offset >= end + alignment:
            gap = tensor
        end, end_is_known = tensor.offset + (tensor.nbytes or 0), tensor.nbytes is not None
        previous = tensor
    unknown = [t for t in tensors if t.nbytes is None]
    long_names = [t for t in tensors if len(t.name.encode()) > MAX_NAME_BYTES]
    notes = []
    if gap is not None:
        notes.append(f"there is a gap before tensor {gap.name!r}: llama.cpp refuses such files")
    if unknown:
        notes.append(
            f"{len(unknown)} of {len(tensors)} tensors have a type that the pinned ggml does not know, such as "
            f"{unknown[0].name!r} ({unknown[0].type_name}): their sizes are left out"
        )
    if long_names:
        notes.append(f"tensor name {long_names[0].name!r} is longer than the {MAX_NAME_BYTES} bytes llama.cpp accepts")
    return tuple(notes)


def padded(nbytes: int, alignment: int = DEFAULT_ALIGNMENT) -> int:
    """`nbytes` rounded up to a multiple of `alignment`."""
    return -(-nbytes // alignment) * alignment
