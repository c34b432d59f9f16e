"""The table of tensors: what does each row say, what of it does ggml refuse, and what is only odd?

Source: llama.cpp 0c1e570 ggml/src/gguf.cpp, gguf_init_from_reader (what it refuses, we refuse or note).
"""

import struct
from collections.abc import Sequence
from typing import Final

from ggufphys.errors import GGUFError
from ggufphys.frozen import dataclass
from ggufphys.gguf.cursor import Cursor, layout_of
from ggufphys.gguf.ggml_types import SIZES, GGMLType
from ggufphys.gguf.values import text_of

MAX_DIMS: Final = 4  # GGML_MAX_DIMS
MAX_NAME_BYTES: Final = 63  # GGML_MAX_NAME less the terminator
_TYPES: Final = {int(ggml_type): ggml_type for ggml_type in GGMLType}  # found sooner than by calling the enum


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


def read_tensors(cursor: Cursor, n_tensors: int, shard: int) -> tuple[TensorInfo, ...]:
    """The rows that begin where the cursor stands.

    Raises:
        TruncatedError: the buffer ends before they do.
        GGUFError: a row that ggml would refuse.
    """
    buffer, tensors = cursor.buffer, dict[str, TensorInfo]()
    length, n_axes = layout_of(cursor.prefix + cursor.length_format), layout_of(cursor.prefix + "I")
    rows = [n_dims * cursor.length_format + "IQ" for n_dims in range(MAX_DIMS + 1)]
    layouts = [layout_of(cursor.prefix + row) for row in rows]
    for index in range(n_tensors):
        try:
            start = cursor.position + length.size
            end = start + length.unpack_from(buffer, cursor.position)[0]
            layout = layouts[n_axes.unpack_from(buffer, end)[0]]
            values = layout.unpack_from(buffer, end + n_axes.size)
            name = text_of(buffer[start:end])
            cursor.position = end + n_axes.size + layout.size
        except (struct.error, OverflowError, IndexError):
            name, values = _read_tensor(cursor, f"the name of tensor {index} of {n_tensors}", rows)
        if name in tensors:
            raise GGUFError(f"{cursor.label}: duplicate tensor {name!r} (tensor {index})")
        *dims, type_number, offset = values
        ne = tuple(dims)
        ggml_type, nbytes = _tensor_nbytes(name, ne, type_number, cursor.label)
        tensors[name] = TensorInfo(name=name, ne=ne, ggml_type=ggml_type, offset=offset, nbytes=nbytes, shard=shard)
    return tuple(tensors.values())


def _read_tensor(cursor: Cursor, what: str, rows: Sequence[str]) -> tuple[str, tuple[int, ...]]:
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


def check_layout(tensors: tuple[TensorInfo, ...], alignment: int, label: str) -> tuple[str, ...]:
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
