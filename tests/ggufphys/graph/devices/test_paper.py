"""Backends' rules against llama.cpp's account of devices that exist on paper, recorded and, where g++ is, live."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from ggufphys.errors import UnsupportedError
from ggufphys.gguf import open_gguf
from ggufphys.memory.predict import Predictor
from ggufphys.params import Params
from scripts import build_paper
from scripts.build_paper import Paper
from scripts.record_paper import record
from tests import archs, paper
from tests.vulkan import Row

ROOT = Path(__file__).parents[4]
QUICK = (
    "llama", "qwen3moe", "deepseek2", "dots1", "mimo2", "smallthinker", "qwen3tts", "qwen3next", "gemma4/moe",
    "deepseek4", "rwkv6qwen2",
)  # fmt: skip
LIVE = ("llama", "qwen3moe", "deepseek2", "smallthinker", "qwen3next")
DEVICES = pytest.mark.parametrize("device", build_paper.PAPERS, ids=lambda device: device.name)
# Not followed: what llama.cpp reserves for an encoder on devices, and six rows of Metal's.
T5 = (("t5", "two layers"), ("t5/decoder", "two layers"))
NOT_FOLLOWED: Mapping[str, Sequence[tuple[str, str]]] = {
    "CUDA": T5,
    "MTL": (
        *T5,
        *((name, "four sequences") for name in ("kimi-linear", "kimi-linear/conv", "bailingmoe3", "bailingmoe3/head")),
        *((name, "all") for name in ("glm5-next", "glm5-next/head")),
    ),
}


def predicted(predictor: Predictor, params: Params) -> Row:
    """The row that ours would be recorded as."""
    try:
        devices = predictor.predict(params).devices
    except ValueError:
        return "refused"
    return tuple((d.model_bytes, d.context_bytes, d.compute_bytes) for d in devices)


def differences(folder: Path, name: str, device: Paper, theirs: Mapping[str, Row]) -> Iterator[str]:
    """Rows of one model that are not llama.cpp's; what it ends itself over is not compared."""
    path = folder / "model.gguf"
    path.write_bytes(archs.header(name))
    with open_gguf(path) as gguf:
        try:
            predictor = Predictor(gguf)
        except UnsupportedError:  # a draft model that is nothing without its target
            return
        for configuration, params in paper.grid(device).items():
            row = theirs[configuration]
            if row == "aborts" or (name, configuration) in NOT_FOLLOWED[device.name]:
                continue
            if (ours := predicted(predictor, params)) != row:
                yield f"{name}, {configuration}: {ours}, llama.cpp's {row}"


@DEVICES
def test_some_records(tmp_path: Path, device: Paper) -> None:
    """Model, context and compute bytes of host and device are llama.cpp's for models that show each rule."""
    records = paper.records(device)

    assert [line for name in QUICK for line in differences(tmp_path, name, device, records[name])] == []


@pytest.mark.slow
@DEVICES
def test_all_records(tmp_path: Path, device: Paper) -> None:
    """The same of a small model of every architecture, nearly all of which give bytes."""
    records = paper.records(device)
    rows = [row for by_configuration in records.values() for row in by_configuration.values()]

    assert records.keys() == archs.records().keys()
    assert sum(isinstance(row, tuple) for row in rows) > 0.9 * len(rows)
    assert [line for name, theirs in records.items() for line in differences(tmp_path, name, device, theirs)] == []


@pytest.mark.slow
@DEVICES
def test_live(device: Paper) -> None:
    """What llama.cpp says now, on a device built from the pinned source, is what was recorded."""
    if shutil.which("g++") is None:
        pytest.skip("to build devices on paper: g++")
    folder = ROOT / "build" / "paper"
    build_paper.build(folder)
    for name in LIVE:
        assert record(name, device, folder) == list(paper.records(device)[name].values())
