"""Our logits against llama.cpp's."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

import refengine
from ggufphys.cli import main
from ggufphys.embedded import MODEL
from refengine.checks.logits import Agreement, agreement
from refengine.checks.report_logits import as_text
from refengine.checks.verify_logits import LogitsReport, LogitsRow, nearest_judged, verify_logits
from refengine.ops.rope import angles
from refengine.peers.simd import detected
from tests.refengine import tiny
from tests.refengine.beside_llama import compare_logits

# Activations are rounded to F16 in front of every product with F16 weights. Two computations whose sums differ in the
# last bit of F32 round some of them differently, and after some layers differ by F16's noise: so do ours with sums in
# F32 and F64, and llama.cpp's with and without flash attention.
F16_NOISE = 5e-7

PYTHON = [37, 265, 3, 1112, 11, 290, 421, 99, 1500, 2000, 7, 13]  # any tokens will do


@pytest.mark.parametrize("flash_attn", [False, True])
def test_embedded_model(flash_attn: bool) -> None:
    """On the embedded model both find the same token likeliest at every position, within F16's noise."""
    model = refengine.load(MODEL, flash_attn=flash_attn)
    tokens = list(model.generate_tokens(PYTHON, 60))

    [found] = compare_logits([model], PYTHON + tokens, 64)

    assert found.n_positions == 72
    assert found.top1 == 1.0
    assert found.nmse < F16_NOISE


def test_agreement() -> None:
    """The error is relative to the reference's own square."""
    reference = np.array([[3.0, 4.0], [0.0, 5.0]], np.float32)
    found = agreement(reference, reference + np.array([[0.0, 1.0], [6.0, 0.0]], np.float32))

    assert found.nmse == pytest.approx(37 / 50)
    assert found.max_abs == 6.0
    assert found.top1 == 0.5


def test_verify_logits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`verify MODEL --logits` judges each way of running the model, and exits with 0 when all agree."""
    path = tiny.write(tmp_path / "f32.gguf", "llama")
    assert main(["verify", str(path), "--logits", "--prompt-tokens", "8", "--decode-tokens", "2", "--json"]) == 0

    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is True
    assert {row["flash_attn"] for row in report["rows"]} == {False, True}
    assert all(row["nmse"] <= row["limit"] and row["n_positions"] == 10 for row in report["rows"])
    assert all(row["nmse"] > 0 for row in report["rows"] if not row["emulate"])
    assert any(row["emulate"] for row in report["rows"]) is (detected() is not None)


def test_verify_logits_tells_a_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph that computes something else is beyond the limit."""
    monkeypatch.setattr("refengine.ops.rope.angles", lambda settings, positions, n_tokens, n_pairs: 2 * angles(
        settings, positions, n_tokens, n_pairs
    ))  # fmt: skip

    report = verify_logits(tiny.write(tmp_path / "f32.gguf", "llama"), n_prompt=8, n_decode=2)

    assert report.exit_code == 1
    assert not any(row.ok for row in report.rows)


@pytest.mark.parametrize(("n_positions", "nmse", "said"), [(5, 2e-4, True), (5, 1e-5, False), (96, 2e-4, False)])
def test_few_positions_are_no_proof(n_positions: int, nmse: float, said: bool) -> None:
    """A difference in a handful of positions is told with a doubt: the limit is llama.cpp's own noise in those few."""
    found = Agreement(n_positions=n_positions, nmse=nmse, max_abs=0.1, top1=1.0)
    row = LogitsRow(flash_attn=True, emulate=True, found=found, limit=1e-4)
    report = LogitsReport(model="m.gguf", n_prompt=4, n_decode=1, seed=0, noise=5e-5, rows=(row,))

    assert ("before you believe" in as_text(report)) == said


def test_a_device_is_judged_by_the_nearer_arithmetic() -> None:
    """Whether a device rounds activations follows from what it can do: one way counts, whatever the attention."""
    found = {
        (flash, emulate): Agreement(n_positions=9, nmse=nmse, max_abs=0.1, top1=1.0)
        for flash, emulate, nmse in ((False, True, 5e-4), (False, False, 3e-7), (True, True, 2e-5), (True, False, 4e-5))
    }
    rows = [LogitsRow(flash_attn=f, emulate=e, found=found[f, e], limit=6e-5 if e else None) for f, e in found]
    judged = nearest_judged(rows, 6e-5)

    assert [row.limit for row in judged] == [None, 6e-5, None, 6e-5]
    assert all(row.ok for row in judged)
    assert not all(row.ok for row in nearest_judged(rows, 1e-8))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems' names are text")
def test_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    """A file's name goes to llama.cpp as the bytes that it is."""
    path = tiny.write(tmp_path / os.fsdecode(b"\xff.gguf"), "llama")

    assert main(["verify", str(path), "--logits", "--prompt-tokens", "2", "--decode-tokens", "1", "--json"]) == 0
