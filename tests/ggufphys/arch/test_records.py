"""Model, context and compute bytes of small models of every architecture equal what llama.cpp said of them."""

import ctypes
from pathlib import Path

import pytest

from ggufphys.arch import RULES
from ggufphys.graph.models import MODELS
from tests import archs, oracle
from tests.arch_checks import checks

# No record can be made of it: the loader refuses to load a projector as a model.
WITHOUT_RECORD = {"clip"}
# Names without a model class: one that was never implemented, and the name of none.
NAMED_ONLY = {"gptj", "(unknown)"}

LIVE = ("llama", "gemma3/period", "deepseek2", "deepseek4", "lfm2", "falcon-h1", "mamba2", "qwen35/head")
LIVE_ROWS = (3, 8, 11, 22)  # several streams, Q8_0, Q4_0 keys, the prediction head


@pytest.mark.parametrize("name", archs.records())
def test_records(tmp_path: Path, name: str) -> None:
    """Each configuration gives llama.cpp's bytes, on the host and on each device, or is refused as it was; where there
    is a graph of the architecture, compute bytes too.
    """
    found = list(checks(name, tmp_path))

    assert [(c.params, c.ours, c.llama_cpp) for c in found if c.counts and not c.exact] == []
    computed = [(c.params, c.compute) for c in found if c.compute is not None and c.compute_is_exact]
    assert [(params, sizes) for params, sizes in computed if sizes[0] != sizes[1]] == []
    ran = any(c.compute is not None for c in found)
    assert bool(computed) is (ran and archs.models()[name].arch in MODELS)


def test_almost_every_row_is_compared() -> None:
    """llama.cpp aborts at few configurations, and at no architecture's every one."""
    rows = {name: (*record.rows, *record.device_rows) for name, record in archs.records().items()}
    aborted = sum(row.count("aborts") for row in rows.values())

    assert aborted / sum(map(len, rows.values())) < 0.02
    assert not [name for name, row in rows.items() if set(row) <= {"aborts", "refused"} and "aborts" in row]


def test_records_are_of_these_models() -> None:
    """Every model has a record, and no record is left of a model that is gone."""
    assert set(archs.records()) == set(archs.models())


def test_every_row_of_the_table_is_recorded() -> None:
    """Every architecture in the table has a record, but for those that llama.cpp does not load as a model."""
    assert {model.arch for model in archs.models().values()} == set(RULES) - WITHOUT_RECORD


def test_every_architecture_of_the_installed_build_has_a_row() -> None:
    """What the installed llama.cpp calls an architecture and has a model class for has a row, and nothing else has."""
    assert set(RULES) == set(installed_architectures()) - NAMED_ONLY


@pytest.mark.parametrize("name", LIVE)
def test_live(tmp_path: Path, name: str) -> None:
    """The installed llama.cpp says of some models what the records say."""
    pytest.importorskip("llama_cpp")
    path = tmp_path / "model.gguf"
    archs.write(path, name, archs.records()[name].tensors)
    said = oracle.ask(path, [archs.GRID[i] for i in LIVE_ROWS])

    assert [archs.row(answer) for answer in said] == [archs.records()[name].rows[i] for i in LIVE_ROWS]


def installed_architectures() -> list[str]:
    """The names that the installed llama.cpp knows."""
    api = pytest.importorskip("llama_cpp").llama_cpp
    name = api._lib._Z13llm_arch_name8llm_arch
    name.restype, name.argtypes = ctypes.c_char_p, [ctypes.c_int]
    names: list[str] = []
    while (text := name(len(names)).decode()) != "unknown":
        names.append(text)
    return names
