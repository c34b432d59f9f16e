"""The reverse of the reader: a header's bytes from metadata and a tensor table. Tensor data is the caller's to stream.

>>> header = encode_header({"general.architecture": "llama"}, [TensorSpec("a.weight", (32, 2), GGMLType.Q8_0)])
>>> header[:4], len(header) % 32
(b'GGUF', 0)
"""

import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from ggufphys.frozen import dataclass
from ggufphys.gguf.ggml_types import SIZES, GGMLType
from ggufphys.gguf.reader import DEFAULT_ALIGNMENT, MAGIC, padded
from ggufphys.gguf.values import FORMATS, ByteOrder, Scalar, ValueType


@dataclass(frozen=True, slots=True)
class Typed:
    """A value with its GGUF type spelt out, where the default for its Python type is not the one wanted."""

    value: Scalar | Sequence[Scalar]
    value_type: ValueType  # of the elements, when the value is a sequence


WriteValue = Scalar | Sequence[Scalar] | Typed


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A tensor to be written: `ne` in ggml's order, innermost first."""

    name: str
    ne: tuple[int, ...]
    ggml_type: GGMLType

    @property
    def n_elements(self) -> int:
        """The number of weights."""
        product = 1
        for n in self.ne:
            product *= n
        return product

    @property
    def nbytes(self) -> int:
        """Bytes of its data, without padding."""
        size = SIZES[self.ggml_type]
        return self.n_elements // size.block_size * size.type_size


def data_bytes(tensors: Iterable[TensorSpec], alignment: int = DEFAULT_ALIGNMENT) -> int:
    """Bytes of the data section: every tensor, each padded."""
    return sum(padded(t.nbytes, alignment) for t in tensors)


def encode_header(
    metadata: Mapping[str, WriteValue],
    tensors: Sequence[TensorSpec],
    *,
    alignment: int = DEFAULT_ALIGNMENT,
    version: int = 3,
    byte_order: ByteOrder = "little",
) -> bytes:
    """The header with its padding: tensor data starts right behind it, each tensor padded to `alignment`.

    Ints become UINT32 (INT32 when negative, 64-bit when too large), floats FLOAT32, sequences arrays of INT32, FLOAT32,
    BOOL or STRING by their first element; `Typed` says otherwise. A custom alignment is written as general.alignment.
    """
    encoder = _Encoder("<" if byte_order == "little" else ">", "I" if version == 1 else "Q")
    if alignment != DEFAULT_ALIGNMENT:
        metadata = {**metadata, "general.alignment": alignment}
    parts = [
        MAGIC,
        encoder.number("I", version),
        encoder.number(encoder.length_format, len(tensors)),
        encoder.number(encoder.length_format, len(metadata)),
    ]
    parts += [encoder.string(key) + encoder.value(value) for key, value in metadata.items()]
    offset = 0
    for tensor in tensors:
        parts.append(encoder.tensor(tensor, offset))
        offset += padded(tensor.nbytes, alignment)
    header = b"".join(parts)
    return header + bytes(padded(len(header), alignment) - len(header))


class _Encoder:
    """Numbers, strings and values in one byte order and one width of lengths."""

    __slots__ = ("length_format", "prefix")

    def __init__(self, prefix: str, length_format: str) -> None:
        self.prefix: Final = prefix
        self.length_format: Final = length_format

    def number(self, character: str, value: Scalar) -> bytes:
        return struct.pack(self.prefix + character, value)

    def string(self, text: str) -> bytes:
        raw = text.encode()
        return self.number(self.length_format, len(raw)) + raw

    def value(self, value: WriteValue) -> bytes:
        typed = value if isinstance(value, Typed) else Typed(value, default_type(value))
        if isinstance(typed.value, Sequence) and not isinstance(typed.value, str):
            head = self.number("I", ValueType.ARRAY) + self.number("I", typed.value_type)
            return head + self.number(self.length_format, len(typed.value)) + self._elements(typed)
        return self.number("I", typed.value_type) + self._elements(Typed([typed.value], typed.value_type))

    def _elements(self, typed: Typed) -> bytes:
        assert isinstance(typed.value, Sequence)
        if typed.value_type is ValueType.STRING:
            return b"".join(self.string(str(element)) for element in typed.value)
        return struct.pack(f"{self.prefix}{len(typed.value)}{FORMATS[typed.value_type]}", *typed.value)

    def tensor(self, tensor: TensorSpec, offset: int) -> bytes:
        dims = b"".join(self.number(self.length_format, n) for n in tensor.ne)
        tail = self.number("I", tensor.ggml_type) + self.number("Q", offset)
        return self.string(tensor.name) + self.number("I", len(tensor.ne)) + dims + tail


def default_type(value: Scalar | Sequence[Scalar]) -> ValueType:
    """The GGUF type a Python value is written as; for a sequence, its elements' type."""
    if isinstance(value, str):
        return ValueType.STRING
    if isinstance(value, Sequence):
        return ValueType.INT32 if not value or type(value[0]) is int else default_type(value[0])
    if isinstance(value, bool):
        return ValueType.BOOL
    if isinstance(value, float):
        return ValueType.FLOAT32
    if value < 0:
        return ValueType.INT32 if value >= -(1 << 31) else ValueType.INT64
    return ValueType.UINT32 if value < 1 << 32 else ValueType.UINT64
