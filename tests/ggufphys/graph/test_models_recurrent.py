"""Compute buffers of recurrent and hybrid models, and of latent attention, are llama.cpp's to the byte."""

from pathlib import Path

import pytest

from ggufphys import open_gguf, predict_memory
from ggufphys.graph.models import MODELS
from tests import archs

ARCHITECTURES = (
    "deepseek2", "falcon-h1", "lfm2", "lfm2moe", "mamba", "mamba2", "nemotron_h", "nemotron_h_moe", "qwen3next",
)  # fmt: skip
NAMES = tuple(name for name, model in archs.models().items() if model.arch in ARCHITECTURES)
GRID = tuple(i for i, params in enumerate(archs.GRID) if params.ctx_type == "default")
SAMPLE = GRID[::5]


def test_all_are_written() -> None:
    """Every architecture here has a graph of its own, and is recorded."""
    assert set(ARCHITECTURES) <= MODELS.keys()
    assert {archs.models()[name].arch for name in NAMES} == set(ARCHITECTURES)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rows", [SAMPLE, pytest.param(GRID, marks=pytest.mark.slow)], ids=["sample", "grid"])
def test_compute_bytes(tmp_path: Path, name: str, rows: tuple[int, ...]) -> None:
    """Each configuration's compute_bytes equals what llama.cpp accounted."""
    record = archs.records()[name]
    archs.write(tmp_path / "model.gguf", name, record.tensors)
    compared = 0
    with open_gguf(tmp_path / "model.gguf") as gguf:
        for i in rows:
            row = record.rows[i]
            if not isinstance(row, str):
                assert predict_memory(gguf, archs.GRID[i]).compute_bytes == row[2], archs.GRID[i]
                compared += 1
    assert compared >= len(rows) // 2
