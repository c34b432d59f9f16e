"""Bytes to GGUFFile and back: reading headers, split files, ggml's types, writing."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ggufphys.gguf.ggml_types import FILE_TYPES, SIZES, GGMLType, TypeSize

if TYPE_CHECKING:
    from ggufphys.gguf.file import GGUFFile, open_gguf
    from ggufphys.gguf.reader import Header, parse_header
    from ggufphys.gguf.split import Shard
    from ggufphys.gguf.tensor_table import TensorInfo
    from ggufphys.gguf.values import GGUFArray, Value, ValueType

__all__ = [
    "FILE_TYPES",
    "SIZES",
    "GGMLType",
    "GGUFArray",
    "GGUFFile",
    "Header",
    "Shard",
    "TensorInfo",
    "TypeSize",
    "Value",
    "ValueType",
    "open_gguf",
    "parse_header",
]


# Imported when somebody asks: parameters and flags are written with types of tensors alone.
_HOMES = {
    "GGUFArray": "values",
    "GGUFFile": "file",
    "Header": "reader",
    "Shard": "split",
    "TensorInfo": "tensor_table",
    "Value": "values",
    "ValueType": "values",
    "open_gguf": "file",
    "parse_header": "reader",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = found
    return found
