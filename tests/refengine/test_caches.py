"""Caches of other types than F16, against llama.cpp's."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import refengine
from refengine.checks.logits import steps
from tests.refengine import tiny
from tests.refengine.beside_llama import compare_batches

N_PROMPT = 86  # of which a part of 22 tokens is computed otherwise than one of 64
N_STEPS = 4
CACHES = (  # of keys, of values, flash attention
    ("q8_0", "q8_0", True), ("q4_0", "q4_0", True), ("q5_1", "iq4_nl", True), ("q5_0", "q4_1", True),
    ("bf16", "bf16", True), ("q4_0", "f16", True), ("f32", "f32", True), ("f16", "f32", True),
    ("q8_0", "f16", False), ("q4_0", "f32", False), ("iq4_nl", "bf16", False), ("bf16", "f16", False),
)  # fmt: skip


@pytest.mark.parametrize(("name", "caches"), [("llama", CACHES), ("gemma3", CACHES[::5])])
def test_cache_types(name: str, caches: tuple[tuple[str, str, bool], ...], tmp_path: Path) -> None:
    """Rows are rotated and rounded as ggml does, and meet queries rounded as ggml does."""
    path = tiny.write(tmp_path / "f32.gguf", name)
    models = [
        refengine.load(
            path, n_ctx=256, n_ubatch=64, n_threads=2, type_k=type_k, type_v=type_v, flash_attn=flash, emulate=True
        )
        for type_k, type_v, flash in caches
    ]
    tokens = np.random.default_rng(1).integers(0, models[0].h.n_vocab, N_PROMPT + N_STEPS).tolist()
    prompt, *rest = steps(tokens, N_PROMPT)

    found = compare_batches(models, [replace(prompt, wanted=np.arange(0, N_PROMPT, 7)), *rest])

    assert {cache: row.nmse for cache, row in zip(caches, found, strict=True) if row.nmse > 1e-7} == {}
