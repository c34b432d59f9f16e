"""Backends' rules against llama.cpp's account of devices that exist on paper, recorded and, where g++ is, live."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from ggufphys.graph.devices import backends
from ggufphys.graph.devices.backends import cuda, metal
from ggufphys.graph.devices.backends.backend import everything
from scripts import build_paper
from scripts.build_paper import Paper
from scripts.record_paper import record
from tests import archs, paper
from tests.device_rows import differences

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


@pytest.fixture(autouse=True)
def _on_paper(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Devices on paper take every operation, and add nothing to any."""
    backends._named.cache_clear()
    for module, name in ((cuda, "CUDA"), (metal, "METAL")):
        monkeypatch.setattr(module, name, replace(getattr(module, name), supports=everything, scratch=None))
    yield
    backends._named.cache_clear()


def differing(name: str, device: Paper, folder: Path) -> Iterator[str]:
    """Rows of one model that are followed and are not llama.cpp's."""
    rows = paper.records(device)[name].items()
    followed = {which: row for which, row in rows if (name, which) not in NOT_FOLLOWED[device.name]}
    return differences(name, folder, paper.grid(device), followed)


@DEVICES
def test_some_records(tmp_path: Path, device: Paper) -> None:
    """Model, context and compute bytes of host and device are llama.cpp's for models that show each rule."""
    assert [line for name in QUICK for line in differing(name, device, tmp_path)] == []


@pytest.mark.slow
@DEVICES
def test_all_records(tmp_path: Path, device: Paper) -> None:
    """The same of a small model of every architecture, nearly all of which give bytes."""
    records = paper.records(device)
    rows = [row for by_configuration in records.values() for row in by_configuration.values()]

    assert records.keys() == archs.records().keys()
    assert sum(isinstance(row, tuple) for row in rows) > 0.9 * len(rows)
    assert [line for name in records for line in differing(name, device, tmp_path)] == []


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
