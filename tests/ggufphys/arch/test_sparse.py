"""Sparse attention of which llama.cpp dies is told, instead of predicted."""

from pathlib import Path
from typing import Any

import pytest

from ggufphys import GGUFError, Params, open_gguf, predict_memory
from ggufphys.gguf.writer import encode_header
from tests import archs


@pytest.mark.parametrize(
    ("name", "key", "value", "message"),
    [
        ("deepseek4", "attention.compress_ratios", [0] * 5, "no layer of 4"),
        ("deepseek4", "attention.compress_ratios", [0, 0, 4, 0, 4], "no layer of 128"),
        ("deepseek4", "hyper_connection.count", 2, "hyper_connection.count is 2, expected 4"),
        ("glm5-next", "hyper_connection.count", 2, "hyper_connection.count is 2, expected 4"),
        ("glm5-next", "attention.indexer.kpool", 1, "kpool is 1, expected 2 or more"),
        ("glm5-next", "attention.indexer.kpool", 3, "a divisor of attention.indexer.top_k, 64"),
        ("glm5-next", "attention.indexer.types", [0, 0, 0, 1], "first layer with attention no indexer"),
    ],
)
def test_what_llama_cpp_dies_of(tmp_path: Path, name: str, key: str, value: Any, message: str) -> None:
    """Its assertions, and the caches of no layer whose rotation it would compute, are told with the key at fault."""
    model = archs.models()[name]
    path = tmp_path / "model.gguf"
    path.write_bytes(encode_header({**model.metadata, f"{model.arch}.{key}": value}, archs.records()[name].tensors))

    with open_gguf(path) as gguf, pytest.raises(GGUFError, match=message):
        predict_memory(gguf, Params(n_ctx=512), force=True)  # else the verdict says so first


def test_coarse_blocks_are_not_needed(tmp_path: Path) -> None:
    """Where indexers are narrower than heads, a cache of no layer is not rotated: llama.cpp runs the model."""
    model = archs.models()["deepseek4/hash"]
    path = tmp_path / "model.gguf"
    tensors = [t for t in archs.records()["deepseek4/hash"].tensors if not t.name.startswith("blk.1.attn_compressor")]
    path.write_bytes(encode_header({**model.metadata, "deepseek4.attention.compress_ratios": [4, 0, 0, 4]}, tensors))

    with open_gguf(path) as gguf:
        memory = predict_memory(gguf, Params(n_ctx=2048, use_extra_bufts=False, use_mmap=False))

    assert (memory.model_bytes, memory.context_bytes, memory.compute_bytes) == (5436736, 1228800, 9872704)
