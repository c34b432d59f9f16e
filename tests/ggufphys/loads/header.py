"""A small llama with a vocabulary, as a header to be changed, and the verdict on it."""

from pathlib import Path
from typing import Any

import ggufphys
from ggufphys.gguf.values import ValueType
from ggufphys.gguf.writer import Typed, WriteValue, encode_header
from tests import archs

N_VOCAB = 300
U64, F64, I32 = ValueType.UINT64, ValueType.FLOAT64, ValueType.INT32

BPE: dict[str, WriteValue] = {
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "llama-bpe",
    "tokenizer.ggml.tokens": [f"t{i}" for i in range(N_VOCAB)],
    "tokenizer.ggml.token_type": [1] * N_VOCAB,
    "tokenizer.ggml.merges": ["t 0", "t 1"],
}


def refusals(folder: Path, name: str = "llama", **changes: Any) -> tuple[ggufphys.Refusal, ...]:
    """Why the small model would not load with its keys changed (None: without the key).

    "." in keys is written "__"; a key without one is the architecture's own.
    """
    model = archs.models()[name]
    metadata = dict(model.metadata)
    for changed, value in changes.items():
        key = changed.replace("__", ".")
        full = key if key.startswith(("general.", "tokenizer.", "split.")) else f"{model.arch}.{key}"
        metadata.pop(full, None)
        if value is not None:
            metadata[full] = value
    return of_header(folder, encode_header(metadata, archs.records()[name].tensors))


def of_header(folder: Path, header: bytes) -> tuple[ggufphys.Refusal, ...]:
    """Why a file with this header would not load."""
    path = folder / "model.gguf"
    path.write_bytes(header)
    with ggufphys.open_gguf(path) as gguf:
        return ggufphys.check_loads(gguf)


def typed(value: Any, kind: ValueType) -> Typed:
    """The value as this type."""
    return Typed(value, kind)
