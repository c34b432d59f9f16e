"""Rates that are kept hold for one machine, one library and one way of waiting; elsewhere they come with a note."""

import json
import os
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pytest

from ggufphys.speed.kept import keep, kept_machine, otherwise_built, otherwise_waiting
from ggufphys.speed.rates import Machine, Processor

CPU = Processor(name="CPU", n_threads=1, streams=((0, 10e9),), flops_per_s=1e12)


@pytest.fixture
def notes_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Keeps rates of the identity that is given, and returns what is said of them here."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def notes(identity: dict[str, object]) -> list[str]:
        machine = Machine(name="m", basis="calibrated", source="s", processors=(CPU,), identity=identity)
        keep(json.dumps(machine.to_json()))
        kept = kept_machine()
        assert kept is not None
        return list(kept.notes)

    return notes


def test_rates_of_another_machine_are_told(notes_with: Any) -> None:
    """Where homes are shared or a CPU was exchanged, rates come with a note of whose they are; here without."""
    here = {"n_cpus": os.cpu_count()}
    for identity, n_notes in ((here, 0), ({**here, "n_cpus": 999}, 1), ({}, 0)):
        assert sum("another machine" in note and "999 CPUs" in note for note in notes_with(identity)) == n_notes


@pytest.mark.parametrize(
    ("there", "installed", "is_told"),
    [
        ("0.3.36", "0.3.36", False),
        ("0.3.35", "0.3.36", True),
        ("0.3.36", "", False),
        (None, "0.3.36", False),
    ],
)
def test_rates_of_another_library_are_told(
    there: str | None, installed: str, is_told: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kernels change with llama-cpp-python: rates of another version than the installed one are said to be."""
    if installed:
        (tmp_path / f"llama_cpp_python-{installed}.dist-info").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path / "gone"), str(tmp_path)])
    note = otherwise_built({"llama_cpp": there})

    assert bool(note) == is_told
    assert not note or (str(there) in note and installed in note and "bench calibrate" in note)


def test_the_installed_library_has_a_version(notes_with: Any) -> None:
    """A version that nobody has is told wherever llama-cpp-python is installed."""
    try:
        installed = version("llama-cpp-python")
    except PackageNotFoundError:
        pytest.skip("llama-cpp-python is not installed")
    assert [note for note in notes_with({"llama_cpp": "0.0.1"}) if f"0.0.1, and {installed} is installed" in note]
    assert not notes_with({"llama_cpp": installed})


@pytest.mark.parametrize(
    ("there", "here", "threads", "is_told"),
    [
        ("active", None, [1, 2], False),
        ("active", "passive", [1, 2], True),
        ("passive", None, [1, 2], True),
        ("PASSIVE", "passive", [1, 2], False),
        ("active", "passive", [1], False),
        ("", "passive", [1, 2], False),
    ],
)
def test_threads_that_wait_otherwise_are_told(
    there: str, here: str | None, threads: list[int], is_told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rates of several threads hold for the way in which they waited for each other; another way is said."""
    for name in ("OMP_WAIT_POLICY", "GGUFPHYS_OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    if here is not None:
        monkeypatch.setenv("OMP_WAIT_POLICY", here)
    note = otherwise_waiting({"waiting": {"OMP_WAIT_POLICY": there}, "threads": threads})

    assert bool(note) == is_told
    assert not note or ("OMP_WAIT_POLICY" in note and "bench calibrate" in note)
