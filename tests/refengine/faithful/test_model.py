"""Whole models, with ggml's arithmetic followed to the bit."""

from pathlib import Path

import numpy as np
import pytest

import refengine
from bench.derive import derived
from refengine.checks.logits import steps
from refengine.checks.node_rows import compare_nodes
from refengine.checks.trace import verify_nodes
from refengine.peers.llama_logits import LlamaRequest
from refengine.peers.simd import detected
from tests.refengine import tiny
from tests.refengine.beside_llama import compare_logits
from tests.refengine.faithful.bits import simd_or_skip

# What an F16 cache may make, and quantised weights. Where the order of sums is not followed, roundings go other ways
# than ggml's, and the embedded model's layers amplify that to the size of the roundings themselves.
BARS = {"F16": 1e-7, "Q8_0": 1e-6, "Q4_K_M": 1e-6}
NOISE = {"F16": 5e-6, "Q8_0": 1e-3, "Q4_K_M": 1e-2}


@pytest.mark.parametrize(
    ("file_type", "flash_attn"),
    [
        ("F16", True),
        pytest.param("F16", False, marks=pytest.mark.slow),
        pytest.param("Q8_0", True, marks=pytest.mark.slow),
        ("Q8_0", False),
        ("Q4_K_M", True),
        pytest.param("Q4_K_M", False, marks=pytest.mark.slow),
    ],
)
def test_embedded_model(file_type: str, flash_attn: bool) -> None:
    """Logits are llama.cpp's within the bars, and the same token is likeliest at every position."""
    model = refengine.load(derived(file_type), flash_attn=flash_attn, emulate=True, n_threads=2)
    tokens = np.random.default_rng(0).integers(0, model.h.n_vocab, 72).tolist()

    [found] = compare_logits([model], tokens, 64)

    is_followed = detected() is not None
    assert found.n_positions == 72
    assert found.nmse <= (BARS if is_followed else NOISE)[file_type]
    assert found.top1 == 1.0 or not is_followed


# Each has an operation that the ones before it have not.
MADE_OF = ("gpt-oss", "starcoder2", "falcon-h1", "qwen3next")


def nearly_all_bits(path: Path, *, n_prompt: int, flash_attn: bool) -> None:
    """Assert that by itself no node differs by more than what a compiler chooses, and none of intrinsics at all."""
    simd_or_skip()

    report = verify_nodes(path, n_prompt=n_prompt, n_decode=1, flash_attn=flash_attn, n_threads=2)

    assert max(row.alone for row in report.rows) < 1e-13
    assert all(row.is_exact for row in report.rows if row.op == "MUL_MAT" and row.batch == 1)


@pytest.mark.parametrize("name", MADE_OF)
def test_every_node(name: str, tmp_path: Path) -> None:
    """Every node of models with all operations that are followed, F32 weights and an F16 cache."""
    nearly_all_bits(tiny.write(tmp_path / "model.gguf", name), n_prompt=65, flash_attn=True)


@pytest.mark.parametrize("type_of", [tiny.q8_0, tiny.q4_k_m, tiny.nvfp4])
def test_every_node_of_quantised_weights(type_of: tiny.TypeOf, tmp_path: Path) -> None:
    """The same of quantised weights, with attention as products and a softmax."""
    nearly_all_bits(tiny.write(tmp_path / "model.gguf", "llama/moe", type_of), n_prompt=40, flash_attn=False)


@pytest.mark.parametrize(("cache", "flash_attn"), [(("q8_0", "q4_0"), True), (("q5_0", "f16"), False)])
def test_every_node_of_a_quantised_cache(cache: tuple[str, str], flash_attn: bool, tmp_path: Path) -> None:
    """Rows of a quantised cache are rotated, rounded and multiplied to the bit."""
    simd_or_skip()
    path = tiny.write(tmp_path / "model.gguf", "llama")
    model = refengine.load(
        path, n_ctx=256, n_threads=2, type_k=cache[0], type_v=cache[1], flash_attn=flash_attn, emulate=True
    )
    batches = steps(np.random.default_rng(0).integers(0, model.h.n_vocab, 20).tolist(), 19)
    request = LlamaRequest(path=path, context=model.context, batches=batches, n_threads=2)

    rows = compare_nodes(model, request, forced=True)

    assert max(row.alone for row in rows) < 1e-13
    assert all(row.is_exact for row in rows if row.op == "MUL_MAT")


@pytest.mark.slow
def test_long_cache(tmp_path: Path) -> None:
    """From 512 cells on one token's attention is divided among threads."""
    nearly_all_bits(tiny.write(tmp_path / "model.gguf", "llama"), n_prompt=260, flash_attn=True)
