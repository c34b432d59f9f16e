"""Small encoders of random weights, of any architecture, with a tokenizer of bytes: any text can be embedded."""

from pathlib import Path

from ggufphys.gguf.values import ValueType
from ggufphys.gguf.writer import Typed, WriteValue
from tests import archs
from tests.refengine import tiny

N_VOCAB = 300  # of all small models


def write_encoder(path: Path, name: str, *, pooling: int | None = None, **more: WriteValue) -> Path:
    """The model of that name in `tests/data/archs.toml`; `more` is its metadata, with `__` for dots."""
    words = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    n_unused = N_VOCAB - len(words)
    arch = archs.models()[name].arch
    metadata: dict[str, WriteValue] = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [*words, *(f"<unused{i}>" for i in range(n_unused))],
        "tokenizer.ggml.scores": [0.0] * N_VOCAB,
        "tokenizer.ggml.token_type": Typed([2, 3, 3, *([6] * 256), *([5] * n_unused)], ValueType.INT32),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_eos_token": True,
        "tokenizer.ggml.add_space_prefix": False,
        **({"gemma-embedding.attention.sliding_window_pattern": 2} if arch == "gemma-embedding" else {}),
        **({} if pooling is None else {f"{arch}.pooling_type": pooling}),
        **{f"{arch}.{key.replace('__', '.')}": value for key, value in more.items()},
    }
    return tiny.write(path, name, metadata=metadata)
