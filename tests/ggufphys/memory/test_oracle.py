"""Predictions equal llama.cpp's own figures, byte for byte, on real models' shapes."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from ggufphys import MemoryPrediction, Params, UnsupportedError, open_gguf, predict_memory
from ggufphys.gguf import GGMLType
from ggufphys.gguf.writer import TensorSpec, data_bytes, encode_header
from ggufphys.synth.catalogue import shape_named
from ggufphys.synth.plan import plan_file
from tests import oracle

BASE = Params(n_ctx=4096, use_extra_bufts=False, use_mmap=False)  # what the oracle simulates
GRID = [
    BASE,
    replace(BASE, n_ctx=1000, n_ubatch=64),
    replace(BASE, n_ctx=8192, n_seq_max=4),
    replace(BASE, n_ctx=5000, n_seq_max=3),
    replace(BASE, n_seq_max=4, kv_unified=True),
    replace(BASE, n_ctx=2048, type_k="q8_0", type_v="q8_0", flash_attn="on"),
    replace(BASE, n_ctx=32768, type_k="q4_0", n_ubatch=256),
    replace(BASE, n_ctx=2048, flash_attn="off", n_ubatch=128),
    replace(BASE, n_ctx=8192, n_seq_max=2, swa_full=True),
    replace(BASE, n_ctx=16384, n_batch=1024, n_ubatch=1024),
    replace(BASE, n_ctx=300, n_batch=100),
    replace(BASE, n_ctx=4096, n_outputs_max=1),
    replace(BASE, n_ctx=2048, type_k="bf16", type_v="f32"),
]
N_LAYER = 7  # one more than gemma3's period of windows, so that both kinds and an incomplete period occur

# The compute buffer is exact where the architecture has a graph of its own.
SUPPORTED = [
    "llama-110m", "llama-3.1-8b", "mixtral-8x7b", "qwen2.5-0.5b", "qwen3-8b", "qwen3-30b-a3b", "gemma-2-9b",
    "gemma-3-4b", "phi-4", "gpt-oss-20b",
]  # fmt: skip


def sparse(tmp_path: Path, name: str, file_type: str = "Q4_K_M") -> Path:
    """The first layers of a catalogue shape as a file with a hole for weights."""
    shape = shape_named(name)
    plan = plan_file(shape.cut(min(N_LAYER, shape.n_layer)), file_type)
    path = tmp_path / f"{name}.gguf"
    path.write_bytes(plan.header)
    os.truncate(path, plan.file_bytes)
    return path


def predict(path: Path, params: Params) -> MemoryPrediction | ValueError:
    """The prediction, or the refusal."""
    with open_gguf(path) as gguf:
        try:
            return predict_memory(gguf, params)
        except ValueError as error:
            return error


@pytest.mark.parametrize("name", SUPPORTED)
def test_shapes_against_llama_cpp(tmp_path: Path, name: str) -> None:
    """Model and context bytes are llama.cpp's over the whole grid, compute bytes too where the basis says exact."""
    path = sparse(tmp_path, name)
    for params, truth in zip(GRID, oracle.ask(path, GRID), strict=True):
        predicted = predict(path, params)
        if "error" in truth:
            assert isinstance(predicted, ValueError), (params, truth)
            continue
        assert isinstance(predicted, MemoryPrediction), (params, predicted)
        assert (truth["model"], truth["context"]) == (predicted.model_bytes, predicted.context_bytes), params
        if predicted.basis["compute"] == "exact":
            assert truth["compute"] == predicted.compute_bytes, params


@pytest.mark.parametrize("use_mmap", [True, False])
@pytest.mark.parametrize("use_extra_bufts", [True, False])
@pytest.mark.parametrize("file_type", ["Q4_K_M", "Q4_0", "Q8_0", "F16", "IQ4_NL", "Q2_K"])
def test_weight_buffers_really_allocated(tmp_path: Path, use_mmap: bool, use_extra_bufts: bool, file_type: str) -> None:
    """Weight buffers of a file that is really loaded: mapped or read, repacked for this CPU or not."""
    path = sparse(tmp_path, "llama-110m", file_type)
    params = replace(BASE, n_ctx=256, use_mmap=use_mmap, use_extra_bufts=use_extra_bufts)
    (truth,) = oracle.ask(path, [params], no_alloc=False)
    predicted = predict(path, params)

    assert isinstance(predicted, MemoryPrediction)
    assert (truth["model"], truth["context"], truth["compute"]) == (
        predicted.model_bytes,
        predicted.context_bytes,
        predicted.compute_bytes,
    )


def test_no_rule_is_refused_by_name(tmp_path: Path) -> None:
    """An architecture without a rule is refused, never treated as llama."""
    path = tmp_path / "unknown.gguf"
    tensors = [TensorSpec("token_embd.weight", (256, 32), GGMLType.F16)]
    path.write_bytes(encode_header({"general.architecture": "llama5", "llama5.block_count": 1}, tensors))
    os.truncate(path, path.stat().st_size + data_bytes(tensors))
    with open_gguf(path) as gguf, pytest.raises(UnsupportedError, match="architecture 'llama5' has no memory rule yet"):
        predict_memory(gguf)
