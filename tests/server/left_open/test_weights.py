"""Weights are read where there is room for many times as much, and mapped where the flags or the room say so."""

import argparse
import os
from pathlib import Path

import pytest

from ggufphys.machine.host import MainMemory
from ggufphys.params import Device, Params
from server.engine.llama.huge_pages import LEAST
from server.engine.llama.tiny_model import write_tiny_model
from server.flags.serve import add_arguments
from server.left_open import weights
from server.left_open.weights import ROOM, default_load, describe_load

MAPPED = Params()


def has(monkeypatch: pytest.MonkeyPatch, available_bytes: int, *, huge_pages: bool = True) -> None:
    memory = MainMemory(total_bytes=2 * available_bytes, available_bytes=available_bytes)
    monkeypatch.setattr(weights, "main_memory", lambda: memory)
    monkeypatch.setattr(weights, "can_gather", lambda: huge_pages)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file that is just large enough."""
    path = tmp_path / "model.gguf"
    write_tiny_model(path)
    os.truncate(path, LEAST)
    return path


def test_where_there_is_room(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several times the file's size must be free, and pages of 2 MiB be had."""
    has(monkeypatch, ROOM * LEAST)
    read = default_load(MAPPED, {}, path)
    assert read == Params(use_mmap=False)
    assert "--mmap" in describe_load(read, {})
    assert not describe_load(MAPPED, {})

    has(monkeypatch, ROOM * LEAST - 1)
    assert default_load(MAPPED, {}, path) == MAPPED
    has(monkeypatch, ROOM * LEAST, huge_pages=False)
    assert default_load(MAPPED, {}, path) == MAPPED


def test_few_weights_stay_mapped(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No smaller mapping is gathered, so they would gain nothing."""
    has(monkeypatch, 1 << 40)
    os.truncate(path, LEAST - 1)
    assert default_load(MAPPED, {}, path) == MAPPED


def test_devices_take_them_from_the_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies on a GPU is no matter of the host's pages."""
    has(monkeypatch, 1 << 40)
    params = Params(devices=(Device(name="CUDA0", memory_bytes=1 << 34),))
    assert default_load(params, {}, path) == params


@pytest.mark.parametrize("flags", ["--mmap", "--no-mmap", "--mlock", "-dio", "-lm mmap", "-lm none", "-lm auto"])
def test_flags_decide(path: Path, monkeypatch: pytest.MonkeyPatch, flags: str) -> None:
    """Whoever says how they are loaded is asked nothing, and told nothing."""
    has(monkeypatch, 1 << 40)
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    given = vars(parser.parse_args(flags.split()))
    for params in (MAPPED, Params(use_mmap=False)):
        assert default_load(params, given, path) == params
        assert not describe_load(params, given)
