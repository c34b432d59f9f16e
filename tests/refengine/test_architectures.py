"""Logits of a small model of every architecture whose graph is written, against llama.cpp's."""

from pathlib import Path

import numpy as np
import pytest

import refengine
from ggufphys.graph.models import MODELS
from refengine.logits import Agreement, compare_logits
from tests import archs
from tests.refengine import tiny

N_PROMPT = 64
N_STEPS = 32

NAMES = [name for name in archs.records() if name.partition("/")[0] in MODELS]


def of_models(models: list[refengine.Model]) -> list[Agreement]:
    """A prompt, then steps of one token."""
    tokens = np.random.default_rng(1).integers(0, models[0].h.n_vocab, N_PROMPT + N_STEPS)
    return compare_logits(models, tokens.tolist(), N_PROMPT)


@pytest.mark.parametrize("name", NAMES)
def test_logits(name: str, tmp_path: Path) -> None:
    """With F32 weights and cache nothing is left but the rounding of sums; an F16 cache adds F16's."""
    path = tiny.write(tmp_path / "f32.gguf", name)
    caches = (
        {"type_k": "f32", "type_v": "f32", "flash_attn": False},
        {"flash_attn": False},
        {"flash_attn": True},
    )
    models = [refengine.load(path, n_ctx=256, n_threads=2, **cache) for cache in caches]  # type: ignore[arg-type]

    f32, f16, flash = of_models(models)

    assert f32.nmse <= 1e-10
    assert f16.nmse <= 1e-7
    assert flash.nmse <= 1e-7


@pytest.mark.parametrize("name", [name for name in NAMES if "/" not in name])
def test_quantised_weights(name: str, tmp_path: Path) -> None:
    """Where activations are quantised as ggml does, quantised weights give its logits; where not, only about them."""
    paths = [
        tiny.write(tmp_path / f"{type_of.__name__}.gguf", name, type_of, gain=0.1)
        for type_of in (tiny.q8_0, tiny.q4_k_m)
    ]
    emulated = [refengine.load(path, n_ctx=256, n_threads=2, emulate=True) for path in paths]
    exact = [refengine.load(path, n_ctx=256, n_threads=2) for path in paths]

    q8_0, q4_k_m, plain_q8_0, plain_q4_k_m = of_models(emulated + exact)

    assert q8_0.nmse <= 1e-6
    assert q4_k_m.nmse <= 1e-6
    assert q8_0.nmse < plain_q8_0.nmse <= 1e-3
    assert q4_k_m.nmse < plain_q4_k_m.nmse <= 1e-3
