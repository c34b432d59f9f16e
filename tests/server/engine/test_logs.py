"""llama.cpp's own log, as it is written by a run, reconciles with the prediction."""

from pathlib import Path

import pytest

from ggufphys import Params, open_gguf
from ggufphys.builds import PINNED
from ggufphys.embedded import MODEL
from ggufphys.logs.runs import parse_log
from ggufphys.plan.reconcile import Reconciliation, reconcile
from server.engine.llama.library import create_context, load_model
from server.engine.llama.log import LOG
from tests.ggufphys.models import llama_metadata, llama_tensors, write_model


def run(path: Path, *contexts: Params) -> Reconciliation:
    """Load once, create the contexts one after the other, and compare the log with the prediction."""
    mark = LOG.mark
    with load_model(path, contexts[0]) as model:
        for params in contexts:
            create_context(model, params).close()
    with open_gguf(path) as gguf:
        return reconcile(gguf, parse_log(line.text for line in LOG.since(mark)), {"llama_build": PINNED})


@pytest.mark.parametrize(
    "params",
    [
        Params(n_ctx=512),
        Params(n_ctx=1000, n_seq_max=3, n_batch=300, n_ubatch=100, n_outputs_max=3, use_mmap=False),
        Params(n_ctx=512, n_seq_max=4, kv_unified=True, type_k="q8_0", type_v="q4_0", flash_attn="on"),
        Params(n_ctx=256, type_k="bf16", type_v="f32", flash_attn="off"),
    ],
)
def test_host(params: Params) -> None:
    """On the host every line agrees, and the parameters that were asked for are found in the log."""
    result = run(MODEL, params)

    assert {line.verdict for line in result.lines} == {"equal"}
    assert result.holds
    for name in ("n_seq_max", "kv_unified", "type_k", "type_v", "flash_attn", "use_mmap"):
        assert getattr(result.params, name) == getattr(params, name), name
    assert [name for name, source in result.sources.items() if "assumed" in source] == ["swa_full"]


def test_windows(tmp_path: Path) -> None:
    """A model with windows has two caches, told apart by size; the first context of a load is the one compared."""
    metadata = llama_metadata(
        "cohere2", block_count=4, attention__sliding_window=256, attention__layer_norm_epsilon=1e-5, logit_scale=1.0
    )
    tensors = [t for t in llama_tensors(n_layer=4) if "ffn_norm" not in t.name]
    path = write_model(tmp_path / "windows.gguf", metadata, tensors)
    params = Params(n_ctx=4096, n_seq_max=2)
    result = run(path, params, Params(n_ctx=512))
    caches = [line for line in result.lines if line.quantity == "context"]

    assert len(caches) == 2
    assert {line.verdict for line in caches} == {"equal"}
    assert caches[0].predicted != caches[1].predicted
    assert result.params.n_ctx == 4096
    assert "not compared: 1 more context in the log" in result.notes[0]
