"""A file's keys, their types and values: text, JSON."""

import math
import struct
from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

from ggufphys.gguf import GGUFArray, GGUFFile, Value
from ggufphys.gguf.values import Scalar, ValueType, text_of
from ggufphys.report.inspection import SCHEMA_VERSION, dumps, table
from ggufphys.report.inspection_json import model_json
from ggufphys.units import counted

WIDTH: Final = 64  # characters of a value in its row
MOST_ELEMENTS: Final = 256  # of an array that the document has whole without being asked for it
TOKEN_ID: Final = "_token_id"  # what keys end in whose number is a token


def metadata_text(gguf: GGUFFile) -> str:
    """A row a key, in the file's order; long values are cut."""
    rows = [(key, _type(gguf, key), _shown(gguf, key)) for key in gguf.metadata]
    header = gguf.shards[0].header
    end = f"{counted(len(rows), 'key')}, GGUF v{header.version}, {header.byte_order}-endian"
    return "\n".join([*table(("key", "type", "value"), rows), "", end])


def whole_text(gguf: GGUFFile, key: str) -> str:
    """A key's value and nothing else, an array's elements a line each."""
    value, kind = gguf.metadata[key], gguf.value_types[key]
    if isinstance(value, GGUFArray):
        return "\n".join(_scalar(element, value.element_type) for element in value)
    return _scalar(value, kind)


def metadata_json(gguf: GGUFFile, only: str | None) -> str:
    """The keys as one document; of an array of more than `MOST_ELEMENTS` that is not asked for, `value` is null."""
    rows = [
        {
            "key": key,
            "type": (value.element_type if isinstance(value, GGUFArray) else gguf.value_types[key]).name.lower(),
            "length": len(value) if isinstance(value, GGUFArray) else None,
            "value": [*map(in_json, value)] if only is not None and isinstance(value, GGUFArray) else _few(value),
        }
        for key, value in gguf.metadata.items()
        if only in (None, key)
    ]
    return dumps({"schema_version": SCHEMA_VERSION, "model": model_json(gguf), "metadata": rows})


def in_json(value: Scalar) -> Scalar:
    """A value as JSON has it: numbers that it does not know become text."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _few(value: Value) -> Any:
    if not isinstance(value, GGUFArray):
        return in_json(value)
    return None if len(value) > MOST_ELEMENTS else [*map(in_json, _first(value, len(value)))]


def _type(gguf: GGUFFile, key: str) -> str:
    value = gguf.metadata[key]
    if isinstance(value, GGUFArray):
        return f"{len(value):,} {value.element_type.name.lower()}"
    return gguf.value_types[key].name.lower()


def _shown(gguf: GGUFFile, key: str) -> str:
    """A value in a row's width."""
    value, kind = gguf.metadata[key], gguf.value_types[key]
    if not isinstance(value, GGUFArray):
        return _cut(repr(value) if isinstance(value, str) else f"{_scalar(value, kind)}{_meaning(gguf, key, value)}")
    parts: list[str] = []
    for element in _first(value, WIDTH):  # each takes a character at least
        parts.append(repr(element) if isinstance(element, str) else _scalar(element, value.element_type))
        if sum(map(len, parts)) + 2 * len(parts) > WIDTH:
            break
    text = ", ".join(parts)
    return text if len(parts) == len(value) and len(text) <= WIDTH else f"{text[: WIDTH - 1]}…"


def _meaning(gguf: GGUFFile, key: str, value: Scalar) -> str:
    """What a number stands for: a token, if the file has a list of them; a file type."""
    if key == "general.file_type" and gguf.file_type:
        return f", {gguf.file_type}"
    tokens = gguf.metadata.get("tokenizer.ggml.tokens")
    if not key.endswith(TOKEN_ID) or not isinstance(tokens, GGUFArray) or tokens.element_type is not ValueType.STRING:
        return ""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < len(tokens):
        return ""
    (raw,) = islice(tokens.iter_bytes(), value, value + 1)
    return f", {text_of(raw)!r}"


def _first(array: GGUFArray, n: int) -> Iterator[Scalar]:
    """The array's first elements."""
    return iter(array[:n])


def _scalar(value: Scalar, kind: ValueType) -> str:
    """A number with no more digits than its type holds; a text as it is."""
    if kind is ValueType.FLOAT32 and isinstance(value, float) and math.isfinite(value):
        short = (f"{value:.{digits}g}" for digits in range(6, 10))
        shortest = next(text for text in short if struct.pack("<f", float(text)) == struct.pack("<f", value))
        return f"{value:.0f}" if "e+" in shortest and abs(value) < 1 << 53 else shortest
    return str(value).lower() if isinstance(value, bool) else str(value)


def _cut(text: str) -> str:
    return text if len(text) <= WIDTH else f"{text[: WIDTH - 1]}… ({len(text):,} characters)"
