"""Models without what builds before b8840 do not load, compared with those builds."""

from dataclasses import replace
from pathlib import Path

import pytest

from ggufphys import open_gguf
from ggufphys.builds.proven import why_unproven
from ggufphys.memory.predict import Predictor
from tests import archs, older


@pytest.mark.parametrize("build", sorted(older.records()))
def test_some_older_rows_are_as_recorded(build: int, tmp_path: Path) -> None:
    """Model, context and compute bytes are those of builds that refuse the models as recorded, and called exact."""
    names = list(older.records()[build])
    _compare(build, names[sorted(older.records()).index(build) :: 14], tmp_path / "model.gguf")


@pytest.mark.slow
@pytest.mark.parametrize("build", sorted(older.records()))
def test_all_older_rows_are_as_recorded(build: int, tmp_path: Path) -> None:
    """The same of all of them."""
    _compare(build, list(older.records()[build]), tmp_path / "model.gguf")


@pytest.mark.parametrize("name", ["qwen3next", "qwen35moe", "kimi-linear", "gemma3/period", "llama4/none", "chameleon"])
def test_each_rule_of_older_builds(name: str, tmp_path: Path) -> None:
    """What the first recorded build does otherwise: delta nets by chunks, windows as published, llama4 as llama."""
    _compare(min(b for b, rows in older.records().items() if name in rows), [name], tmp_path / "model.gguf")


def _compare(build: int, names: list[str], path: Path) -> None:
    n_compared = 0
    for name in names:
        form, rows = older.records()[build][name]
        path.write_bytes(older.header(name, form))
        with open_gguf(path) as gguf:
            predictor = Predictor(gguf)
            for params, row in zip(archs.GRID, rows, strict=True):
                if isinstance(row, str):
                    continue
                memory = predictor.predict(replace(params, llama_build=build))
                assert (memory.model_bytes, memory.context_bytes, memory.compute_bytes) == row, (name, params)
                assert why_unproven(archs.models()[name].arch, build) or memory.basis["compute"] == "exact"
                n_compared += 1
    assert n_compared >= 10


def test_every_older_build_is_recorded() -> None:
    """Builds that refuse many models as recorded have rows of most of them in another form."""
    for build, rows in older.records().items():
        assert len(rows) > 0.6 * len(older.refused(build))
