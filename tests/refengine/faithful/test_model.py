"""Whole models, with ggml's arithmetic followed to the bit."""

from pathlib import Path

import pytest

import refengine
from bench.derive import derived
from ggufphys.embedded import MODEL
from refengine.logits import Agreement, compare_logits
from refengine.simd import detected
from refengine.trace import verify_nodes
from tests.refengine import tiny
from tests.refengine.faithful.bits import simd_or_skip

PYTHON = [37, 265, 3, 1112, 11, 290, 421, 99, 1500, 2000, 7, 13]  # any tokens will do

# What an F16 cache may make, and quantised weights. Where the order of sums is not followed, roundings go other ways
# than ggml's, and the embedded model's layers amplify that to the size of the roundings themselves.
BARS = {"F16": 1e-7, "Q8_0": 1e-6, "Q4_K_M": 1e-6}
NOISE = {"F16": 5e-6, "Q8_0": 1e-3, "Q4_K_M": 1e-2}


@pytest.fixture(scope="module")
def tokens() -> list[int]:
    """What the embedded model goes on with, so that its logits are sure of something."""
    return PYTHON + list(refengine.load(MODEL).generate_tokens(PYTHON, 84))


def found(file_type: str, tokens: list[int], *, flash_attn: bool) -> Agreement:
    """A prompt of 64 tokens and 32 steps."""
    model = refengine.load(derived(file_type), flash_attn=flash_attn, emulate=True, n_threads=2)
    [agreement] = compare_logits([model], tokens, 64)
    return agreement


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
def test_embedded_model(file_type: str, flash_attn: bool, tokens: list[int]) -> None:
    """Logits are llama.cpp's within the bars, and the same token is likeliest at every position."""
    agreement = found(file_type, tokens, flash_attn=flash_attn)

    is_followed = detected() is not None
    assert agreement.n_positions == 96
    assert agreement.nmse <= (BARS if is_followed else NOISE)[file_type]
    assert agreement.top1 == 1.0 or not is_followed


@pytest.mark.parametrize("flash_attn", [False, True])
@pytest.mark.parametrize("type_of", [tiny.all_f32, tiny.q8_0, tiny.q4_k_m])
def test_every_node_of_a_llama(type_of: tiny.TypeOf, flash_attn: bool, tmp_path: Path) -> None:
    """By itself no node of a llama differs from ggml's by more than a compiler may make of it."""
    simd_or_skip()
    path = tiny.write(tmp_path / "model.gguf", "llama", type_of)

    report = verify_nodes(path, n_prompt=65, n_decode=1, flash_attn=flash_attn, n_threads=2)

    assert max(row.alone for row in report.rows) < 1e-13
    in_products = [row for row in report.rows if row.op == "MUL_MAT" and row.batch == 1]
    assert all(row.is_exact for row in in_products)  # of intrinsics alone: no compiler's choice
