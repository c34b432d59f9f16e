"""Architectures that the pinned llama.cpp does not know, compared with newer builds of it."""

from dataclasses import replace
from pathlib import Path

import pytest

import ggufphys
from ggufphys import Params, open_gguf
from ggufphys.arch.table import LATER
from ggufphys.builds.newer import NEWER, may_know
from ggufphys.graph.models import LATER as LATER_MODELS
from ggufphys.memory.predict import Predictor
from tests import archs, newer


@pytest.mark.parametrize("build", sorted(newer.records()))
@pytest.mark.parametrize("name", list(newer.models()))
def test_newer_architectures_are_as_recorded(name: str, build: int, tmp_path: Path) -> None:
    """Model, context and compute bytes are those of a llama.cpp that knows the architecture, and called exact."""
    rows = newer.records()[build][name]
    newer.write(tmp_path / "model.gguf", name)
    with open_gguf(tmp_path / "model.gguf") as gguf:
        predictor = Predictor(gguf)
        for params, row in zip(archs.GRID, rows, strict=True):
            if isinstance(row, str):
                continue
            memory = predictor.predict(replace(params, llama_build=build))
            assert (memory.model_bytes, memory.context_bytes, memory.compute_bytes) == row, params
            assert memory.basis["compute"] == "exact"


@pytest.mark.parametrize("name", list(newer.models()))
def test_older_builds_refuse_newer_architectures(name: str, tmp_path: Path) -> None:
    """A build before the first that knows the architecture is refused, with that one's number."""
    newer.write(tmp_path / "model.gguf", name)
    first = NEWER[newer.models()[name].arch][1]
    with open_gguf(tmp_path / "model.gguf") as gguf:
        with pytest.raises(ggufphys.UnsupportedError, match=f"b{first} is the first record"):
            Predictor(gguf).predict(Params())
        (refusal,) = ggufphys.check_loads(gguf)
        assert f"b{first} is the first record that does" in refusal.expected
        assert not ggufphys.check_loads(gguf, Params(llama_build=first))


def test_each_row_has_a_graph_and_a_record() -> None:
    """Every newer architecture with a row has a graph, a small model, and rows of each build that knows it."""
    assert set(LATER) == set(LATER_MODELS) <= set(NEWER)
    assert {model.arch for model in newer.models().values()} == set(LATER)
    for build, rows in newer.records().items():
        for name, model in newer.models().items():
            assert any(not isinstance(row, str) for row in rows[name]) == may_know(model.arch, build)
