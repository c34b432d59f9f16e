"""Would ggml read the file itself? Version, byte order, alignment, and tensors that lie one behind the other.

What no reader can make sense of (a key twice, rows that are no whole blocks) ends ours, too, and is no part of this.

Source: llama.cpp 0c1e570 ggml/src/gguf.cpp, gguf_init_from_reader.
"""

import sys
from collections.abc import Iterator, Sequence
from typing import Final

from ggufphys.gguf import GGMLType, GGUFFile, TensorInfo
from ggufphys.gguf.reader import Header, padded
from ggufphys.gguf.tensor_table import MAX_NAME_BYTES
from ggufphys.gguf.values import ValueType
from ggufphys.loads.refusal import Refusal
from ggufphys.loads.types import wrong_type

SOURCE: Final = "llama.cpp 0c1e570 ggml/src/gguf.cpp, gguf_init_from_reader"


def check_container(gguf: GGUFFile) -> Iterator[Refusal]:
    """Every reason that lies in the files' form, shard by shard."""
    yield from wrong_type(gguf, "general.alignment", ValueType.UINT32)
    for shard in gguf.shards:
        header, name = shard.header, shard.name
        if header.version == 1:
            yield _refusal("a version that llama.cpp no longer reads", name, "GGUF v1", "v2 or v3")
        if header.byte_order != sys.byteorder:
            yield _refusal("another byte order than this machine's", name, header.byte_order, sys.byteorder)
        yield from _names(header.tensors)
        yield from _offsets(header)


def _names(tensors: Sequence[TensorInfo]) -> Iterator[Refusal]:
    for tensor in tensors:
        nbytes = len(tensor.name.encode())
        if nbytes > MAX_NAME_BYTES:
            found, most = f"a name of {nbytes} bytes", f"at most {MAX_NAME_BYTES}"
            yield _refusal("a name that is too long", tensor.name, found, most)
        if not isinstance(tensor.ggml_type, GGMLType):
            yield _refusal("a type that llama.cpp does not know", tensor.name, tensor.type_name, "one of ggml's")


def _offsets(header: Header) -> Iterator[Refusal]:
    """The first tensor that does not begin where the one before it ends."""
    expected = 0
    for tensor in header.tensors:
        if tensor.offset != expected:
            found = f"offset {tensor.offset:,}"
            yield _refusal("a tensor that does not begin where it should", tensor.name, found, f"{expected:,}")
            return
        if tensor.nbytes is None:
            return  # how long it is nobody knows
        expected += padded(tensor.nbytes, header.alignment)


def _refusal(what: str, where: str, found: str, expected: str) -> Refusal:
    return Refusal(what=what, where=where, found=found, expected=expected, source=SOURCE)


__all__ = ["check_container"]
