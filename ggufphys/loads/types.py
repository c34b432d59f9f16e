"""What llama.cpp calls the types of metadata values, and what it says of a key that is of another type, or missing.

Source: llama.cpp 0c1e570 ggml/src/gguf.cpp, GGUF_TYPE_NAME; src/llama-model-loader.cpp, GKV::get_kv, get_key.
"""

from collections.abc import Iterator
from typing import Final

from ggufphys.gguf import GGUFArray, GGUFFile
from ggufphys.gguf.values import ValueType
from ggufphys.loads.refusal import Refusal

LOADER: Final = "llama.cpp 0c1e570 src/llama-model-loader.cpp"
WRONG_TYPE: Final = "the value has another type than llama.cpp reads"
TYPE_NAMES: Final = {
    ValueType.UINT8: "u8", ValueType.INT8: "i8", ValueType.UINT16: "u16", ValueType.INT16: "i16",
    ValueType.UINT32: "u32", ValueType.INT32: "i32", ValueType.FLOAT32: "f32", ValueType.BOOL: "bool",
    ValueType.STRING: "str", ValueType.ARRAY: "arr", ValueType.UINT64: "u64", ValueType.INT64: "i64",
    ValueType.FLOAT64: "f64",
}  # fmt: skip


def type_name(gguf: GGUFFile, key: str) -> str:
    """The type of a key's value, of an array with its elements' and its length."""
    value = gguf.metadata[key]
    if isinstance(value, GGUFArray):
        return f"arr[{TYPE_NAMES[value.element_type]}, {len(value):,}]"
    return TYPE_NAMES[gguf.value_types[key]]


def wrong_type(gguf: GGUFFile, key: str, wanted: ValueType) -> Iterator[Refusal]:
    """A refusal if the key is there with a value of another type."""
    if gguf.value_types.get(key, wanted) is not wanted:
        yield Refusal(
            what=WRONG_TYPE,
            where=key,
            found=type_name(gguf, key),
            expected=TYPE_NAMES[wanted],
            source=f"{LOADER}, get_key",
        )


def missing(key: str, wanted: str, source: str = f"{LOADER}, get_key") -> Refusal:
    """A refusal for a key that is not there."""
    return Refusal(
        what="a key that llama.cpp needs is missing", where=key, found="none", expected=wanted, source=source
    )


__all__ = ["LOADER", "TYPE_NAMES", "WRONG_TYPE", "missing", "type_name", "wrong_type"]
