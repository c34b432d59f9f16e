"""Logits of a small model of every architecture whose graph is written, against llama.cpp's."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import refengine
from ggufphys.graph.models import MODELS
from refengine.logits import Agreement, compare_logits
from tests import archs
from tests.refengine import tiny


def _keeps_something(name: str) -> bool:
    """Encoders and diffusion models keep nothing from token to token: they are not computed yet."""
    return any(not isinstance(row, str) and row[1] > 0 for row in archs.records()[name].rows)


N_PROMPT = 64
N_STEPS = 32

# A family's ways of computing, each once; the other architectures and all variants take minutes.
QUICK = (
    "llama", "llama/moe", "qwen2", "qwen3", "qwen3moe", "gemma2", "gemma3", "phi3", "gpt-oss", "deepseek2",
    "deepseek2/uncompressed", "granite", "olmo2", "olmoe", "starcoder2", "command-r", "glm4", "mamba2", "falcon-h1",
    "lfm2", "nemotron_h", "qwen3next",
)  # fmt: skip
GENERATES = [name for name in archs.records() if _keeps_something(name) and name.partition("/")[0] in MODELS]
NOT_YET = {
    "llama-embed": "its layers have no cache",
    "cogvlm": "llama.cpp reads V where it lies with as many heads for keys as for queries; this model has fewer",
    "gemma4": "scores without a factor amplify the roundings of GELU's table",
    "deepseek32": "no LIGHTNING_INDEXER",
    "glm-dsa": "no LIGHTNING_INDEXER",
    "hy_v4": "no LIGHTNING_INDEXER",
    "dots3note": "no LIGHTNING_INDEXER",
    "qwen4exp": "inputs that are not filled",
    "minimax-m3": "inputs that are not filled",
    "minimax-01": "inputs that are not filled",
    "graniteswitch": "inputs that are not filled",
    "kimi-k3": "no DSV4_HC_PRE",
}
LLAMA_DOES_NOT = ("llama4/none", "plamo2/first")  # aborts in llama_decode; never comes back from it
OTHERS = [name for name in GENERATES if name not in (*QUICK, *LLAMA_DOES_NOT) and name.partition("/")[0] not in NOT_YET]


def of_models(models: list[refengine.Model]) -> list[Agreement]:
    """A prompt, then steps of one token."""
    tokens = np.random.default_rng(1).integers(0, models[0].h.n_vocab, N_PROMPT + N_STEPS)
    return compare_logits(models, tokens.tolist(), N_PROMPT)


@pytest.mark.parametrize("name", QUICK)
def test_logits(name: str, tmp_path: Path) -> None:
    """With F32 weights and cache nothing is left but the rounding of sums; an F16 cache adds F16's."""
    path = tiny.write(tmp_path / "f32.gguf", name)
    caches: tuple[dict[str, Any], ...] = (
        {"type_k": "f32", "type_v": "f32", "flash_attn": False},
        {"flash_attn": False},
        {"flash_attn": True},
    )
    models = [refengine.load(path, n_ctx=256, n_threads=2, **cache) for cache in caches]

    f32, f16, flash = of_models(models)

    assert f32.nmse <= 1e-10
    assert f16.nmse <= 1e-7
    assert flash.nmse <= 1e-7


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_logits_of_the_others(name: str, tmp_path: Path) -> None:
    """The other architectures and variants with F32 weights and cache."""
    path = tiny.write(tmp_path / "f32.gguf", name)

    [found] = of_models([refengine.load(path, n_ctx=256, n_threads=2, type_k="f32", type_v="f32", flash_attn=False)])

    assert found.nmse <= 1e-10


@pytest.mark.parametrize("name", [name for name in QUICK if "/" not in name])
def test_quantised_weights(name: str, tmp_path: Path) -> None:
    """Where activations are quantised as ggml does, quantised weights give its logits."""
    paths = [
        tiny.write(tmp_path / f"{type_of.__name__}.gguf", name, type_of, gain=0.05)
        for type_of in (tiny.q8_0, tiny.q4_k_m)
    ]

    q8_0, q4_k_m = of_models([refengine.load(path, n_ctx=256, n_threads=2, emulate=True) for path in paths])

    assert q8_0.nmse <= 1e-6
    assert q4_k_m.nmse <= 1e-6


def test_activations_that_are_not_quantised(tmp_path: Path) -> None:
    """Without emulation the logits are further from llama.cpp's, and whole matrices in memory change nothing."""
    path = tiny.write(tmp_path / "q8_0.gguf", "llama", tiny.q8_0, gain=0.05)
    settings: tuple[dict[str, Any], ...] = ({"emulate": True}, {}, {"hold": "quantised"})

    emulated, plain, from_file = of_models([refengine.load(path, n_ctx=256, n_threads=2, **s) for s in settings])

    assert emulated.nmse < 1e-6 < plain.nmse < 1e-3
    assert from_file.nmse == pytest.approx(plain.nmse, rel=0.01)
