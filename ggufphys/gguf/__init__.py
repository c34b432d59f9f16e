"""Bytes to GGUFFile and back: reading headers, split files, ggml's types, writing."""

from ggufphys.gguf.file import GGUFFile, open_gguf
from ggufphys.gguf.ggml_types import FILE_TYPES, SIZES, GGMLType, TypeSize
from ggufphys.gguf.reader import Header, TensorInfo, parse_header
from ggufphys.gguf.split import Shard
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
