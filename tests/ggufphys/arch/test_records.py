"""Model and context bytes of small models of every architecture equal what llama.cpp said of them."""

import ctypes
from pathlib import Path

import pytest

from ggufphys import Params, UnsupportedError, open_gguf, predict_memory
from ggufphys.arch import RULES
from ggufphys.gguf import GGUFFile
from ggufphys.gguf.writer import encode_header
from tests import archs, oracle

# No record can be made of it: the loader refuses to load a projector as a model.
WITHOUT_RECORD = {"clip"}
# Names without a model class: one that was never implemented, and the name of none.
NAMED_ONLY = {"gptj", "(unknown)"}

LIVE = ("llama", "gemma3/period", "deepseek2", "lfm2", "falcon-h1", "mamba2")
LIVE_ROWS = (3, 8, 10)


def header(folder: Path, name: str) -> Path:
    """The model's file without its weights, which no prediction of model and context bytes reads."""
    path = folder / "model.gguf"
    path.write_bytes(encode_header(archs.models()[name].metadata, archs.records()[name].tensors))
    return path


def predicted(gguf: GGUFFile, params: Params) -> tuple[int, int] | str:
    """Model and context bytes, or "refused"."""
    try:
        memory = predict_memory(gguf, params)
    except (ValueError, UnsupportedError):
        return "refused"
    return memory.model_bytes, memory.context_bytes


@pytest.mark.parametrize("name", archs.records())
def test_records(tmp_path: Path, name: str) -> None:
    """Each configuration of the grid gives llama.cpp's bytes, or is refused as it was."""
    rows = archs.records()[name].rows
    with open_gguf(header(tmp_path, name)) as gguf:
        wrong = [
            (params, found, row)
            for params, row in zip(archs.GRID, rows, strict=True)
            if row != "aborts" and (found := predicted(gguf, params)) != (row if isinstance(row, str) else row[:2])
        ]

    assert not wrong


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
    path = tmp_path / "model.gguf"
    archs.write(path, name, archs.records()[name].tensors)
    said = oracle.ask(path, [archs.GRID[i] for i in LIVE_ROWS])

    assert [archs.row(answer) for answer in said] == [archs.records()[name].rows[i] for i in LIVE_ROWS]


def installed_architectures() -> list[str]:
    """The names that the installed llama.cpp knows."""
    from llama_cpp import llama_cpp as api

    name = api._lib._Z13llm_arch_name8llm_arch
    name.restype, name.argtypes = ctypes.c_char_p, [ctypes.c_int]
    names: list[str] = []
    while (text := name(len(names)).decode()) != "unknown":
        names.append(text)
    return names
