"""What is known of a layout before it is made."""

from pathlib import Path

import pytest

from ggufphys import Params, open_gguf
from ggufphys.graph.allocating.layout import Layouts
from ggufphys.graph.batch import reserved_batches
from ggufphys.memory.predict import Predictor
from tests.ggufphys.models import shape_header

SHAPES = ("llama-3.1-8b", "gemma-3-4b", "qwen3-30b-a3b", "deepseek-v2-lite", "mamba2-2.7b", "qwen3-next-80b-a3b")
RUNS = (
    Params(n_ctx=131_072),
    Params(n_ctx=4096, flash_attn="off"),
    Params(n_ctx=8192, n_seq_max=8),
    Params(n_ctx=300, n_ubatch=8, n_outputs_max=4, n_seq_max=4, kv_unified=True),
)


@pytest.mark.parametrize("name", SHAPES)
def test_no_layout_exceeds_its_bound(tmp_path: Path, name: str) -> None:
    """Tensors side by side are at least as long as any layout of all layers, in this context or a shorter one."""
    with open_gguf(shape_header(tmp_path / "model.gguf", name)) as gguf:
        predictor = Predictor(gguf)
        for params in RUNS:
            context = predictor.context(params)
            for batch in reserved_batches(context):
                layout = predictor.layouts.layout(context, batch)
                assert predictor.layouts.at_most(context, batch) >= layout.allocation.buffer_bytes


@pytest.mark.parametrize("name", SHAPES)
def test_the_bound_changes_no_prediction(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decode steps that are not laid out, since their bound is low, would not have decided."""
    with open_gguf(shape_header(tmp_path / "model.gguf", name)) as gguf:
        bounded = [Predictor(gguf).predict(params).compute_bytes for params in RUNS]
        monkeypatch.setattr(Layouts, "at_most", lambda *_: 1 << 60)
        assert bounded == [Predictor(gguf).predict(params).compute_bytes for params in RUNS]
