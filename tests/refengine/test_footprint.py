"""What the numpy engine says it will hold, and what it holds."""

import tracemalloc
from pathlib import Path

import pytest

import refengine
from ggufphys.embedded import MODEL
from ggufphys.graph.ir import Tensor
from refengine.weights import Hold
from tests.refengine import tiny

N_PROMPT, N_PREDICT = 20, 6


def check(model: refengine.Model, n_prompt: int, n_predict: int) -> None:
    """Every quantity that is predicted is what is held behind such a run."""
    predicted = refengine.predict_footprint(model, n_prompt=n_prompt, n_predict=n_predict)
    model.evaluate([i % 50 for i in range(n_prompt)], all_logits=False)
    for _ in range(n_predict):
        model.evaluate([1], all_logits=False)

    assert {q: getattr(predicted, f"{q}_bytes") for q in ("model", "context", "compute")} == model.held_bytes()
    assert predicted.process_bytes <= predicted.process.peak_bytes
    assert predicted.process_bytes > predicted.compute_bytes


@pytest.mark.parametrize("hold", ["f32", "quantised"])
@pytest.mark.parametrize("flash_attn", [False, True])
@pytest.mark.parametrize("name", ["llama", "gemma3", "qwen3moe", "deepseek2", "mamba2", "falcon-h1"])
def test_held_as_predicted(tmp_path: Path, name: str, flash_attn: bool, hold: Hold) -> None:
    """Weights, caches and buffers are predicted to the byte: experts, windows, latent caches, recurrent states."""
    path = tiny.write(tmp_path / "model.gguf", name, tiny.q4_k_m)

    check(refengine.load(path, n_ctx=256, flash_attn=flash_attn, hold=hold), N_PROMPT, N_PREDICT)


def test_several_physical_batches() -> None:
    """Of a long prompt's graphs, those are counted that are kept."""
    check(refengine.load(MODEL, n_ctx=1024, n_ubatch=64), 330, 2)


def test_opened_is_not_computed() -> None:
    """A prediction opens a model and computes nothing."""
    model = refengine.load(MODEL, n_ctx=1024)
    refengine.predict_footprint(model, n_prompt=100)

    assert model.held_bytes() == {"model": 0, "context": 0, "compute": 0}


def test_quantised_weights_take_less() -> None:
    """Weights that stay in the file are not held a second time."""
    held, left = (
        refengine.predict_footprint(refengine.load(MODEL, hold=hold), n_prompt=8) for hold in ("f32", "quantised")
    )

    assert held.model_bytes - left.model_bytes == 2 * (left.model_bytes - 13 * 1024)  # F16 to F32, but for 13 norms
    assert held.process_bytes > left.process_bytes


@pytest.mark.parametrize("flash_attn", [False, True])
def test_what_attention_takes_for_a_while(flash_attn: bool) -> None:
    """Arrays that a prompt's batch needs while it is computed are as large as predicted, within a half and twice."""
    model = refengine.load(MODEL, n_ctx=1024, n_ubatch=512, flash_attn=flash_attn)
    terms = refengine.predict_footprint(model, n_prompt=512).terms
    predicted = sum(term.nbytes for term in terms if term.name.startswith("temporaries"))
    peaks: dict[str, int] = {}
    before = 0

    def look(node: Tensor, _: object) -> None:
        nonlocal before
        now, peak = tracemalloc.get_traced_memory()
        peaks[node.op] = max(peaks.get(node.op, 0), peak - before)
        before = now
        tracemalloc.reset_peak()

    tracemalloc.start()
    try:
        model.evaluate([i % 50 for i in range(512)], all_logits=False, trace=look)
    finally:
        tracemalloc.stop()
    peak = peaks["FLASH_ATTN_EXT" if flash_attn else "SOFT_MAX"]
    assert predicted / 2 < peak < predicted * 2
