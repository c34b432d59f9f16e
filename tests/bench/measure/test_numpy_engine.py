"""Measuring the numpy engine: what it holds is what was predicted of it."""

import json
from pathlib import Path

import pytest

from bench.measure.numpy_engine import measure_numpy, numpy_command
from bench.measure.supervise import PHASES
from ggufphys import Params
from ggufphys.cli import main
from ggufphys.embedded import MODEL
from tests.ggufphys.models import tiny_llama


def test_embedded_model(capsys: pytest.CaptureFixture[str]) -> None:
    """On the embedded model weights, caches and buffers are exact and the process is close enough."""
    assert main(["measure", str(MODEL), "--engine", "numpy", "-c", "512", "-n", "3", "--check", "--json"]) == 0

    document = json.loads(capsys.readouterr().out)
    rows = {row["quantity"]: row for row in document["rows"]}
    assert document["engine"] == "numpy"
    assert [phase["name"] for phase in document["phases"]] == list(PHASES)
    assert [rows[f"{name}_bytes"]["difference"] for name in ("model", "context", "compute")] == [0, 0, 0]
    assert rows["model_bytes"]["measured"] > 30 << 20  # the file's 11 MiB and as F32
    assert document["speed"]["decode_tok_per_s"] > 0


def test_weights_left_as_they_are(tmp_path: Path) -> None:
    """Weights that are not held as F32 are only mapped, and the heading says so."""
    result = measure_numpy(tiny_llama(tmp_path / "tiny.gguf"), Params(n_ctx=256), hold="quantised", n_predict=2)
    rows = {row.quantity: row for row in result.rows}

    assert result.holds, result.rows
    assert rows["model_bytes"].difference == 0
    assert "as they are" in result.heading


def test_failure_is_quoted(tmp_path: Path) -> None:
    """What fails in the child is told with its phase."""
    result = measure_numpy(
        tiny_llama(tmp_path / "tiny.gguf"),
        Params(n_ctx=256),
        n_predict=2,
        command=lambda config: numpy_command({**config, "path": str(tmp_path / "gone.gguf")}),
    )

    assert (result.child.ok, result.child.failed_in) == (False, "weights")
    assert "gone.gguf" in result.notes[0]
    assert not result.holds


def test_without_effect(tmp_path: Path) -> None:
    """Flags that this engine has no use for are named."""
    result = measure_numpy(tiny_llama(tmp_path / "tiny.gguf"), Params(n_ctx=512, n_seq_max=2), n_predict=2)

    assert any("-np" in note for note in result.notes)
    assert result.holds
