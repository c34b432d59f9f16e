"""Machines by their data sheets: names, rates, and that published runs of llama.cpp lie where they are predicted."""

import json
from pathlib import Path

import pytest

from ggufphys.cli import main
from ggufphys.speed.published import data_sheet, machine_classes, published_machine, published_machines
from scripts.check_published import Predicted, published_runs
from tests.ggufphys.models import llama_metadata, llama_tensors, write_model


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small llama."""
    path = tmp_path_factory.mktemp("published") / "llama.gguf"
    write_model(path, llama_metadata(block_count=4, context_length=8192), llama_tensors(n_layer=4))
    return path


def inspected(capsys: pytest.CaptureFixture[str], *argv: str) -> dict[str, object]:
    """The JSON that a command prints."""
    assert main([*argv, "--json"]) == 0
    document: dict[str, object] = json.loads(capsys.readouterr().out)
    return document


def test_every_row_names_what_is_there() -> None:
    """Each machine's class and host are rows themselves, names are unique, and rates are those of some machine."""
    names = [m.name for m in published_machines()]
    assert len(names) == len(set(names))
    for machine in published_machines():
        assert machine.class_name in machine_classes()
        assert not machine.host or machine.host in names
        assert 1e9 < machine.bytes_per_s < 1e13, machine.name
        assert 1e10 < machine.flops_per_s < 1e16, machine.name
        assert data_sheet(machine).host(0).bytes_per_s > 0


def test_memory_is_part_of_the_name() -> None:
    """`m2-air-16gb` is `m2-air` with 16 GiB, of which the GPU may use two thirds."""
    machine = published_machine("M2-Air-16GB")
    assert machine.bytes_per_s == published_machine("m2-air").bytes_per_s
    assert machine.memory_bytes == 16 << 30
    assert machine.device_bytes == 2 * (16 << 30) // 3


def test_unknown_names_are_told_their_neighbours(capsys: pytest.CaptureFixture[str], llama: Path) -> None:
    """A misspelt machine is an error that names those that are alike, and how to see all."""
    assert main(["inspect", str(llama), "--on", "rtx-4091"]) == 2
    error = capsys.readouterr().err
    assert "rtx-4090" in error
    assert "--on list" in error


def test_list_prints_every_machine(capsys: pytest.CaptureFixture[str]) -> None:
    """`--on list` has a line for each machine."""
    assert main(["inspect", "--on", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + len(published_machines())


def test_inspect_on_another_machine(capsys: pytest.CaptureFixture[str], llama: Path) -> None:
    """The other machine's GPU takes the layers, and its rates the speed: twice the bandwidth decodes faster."""
    slow = inspected(capsys, "inspect", str(llama), "--on", "m1")
    fast = inspected(capsys, "inspect", str(llama), "--on", "m2-ultra")
    assert isinstance(slow["speed"], dict)
    assert isinstance(fast["speed"], dict)
    assert slow["speed"]["basis"] == "published"
    assert "MTL0" in json.dumps(slow)
    for speed in (slow["speed"], fast["speed"]):
        figure = speed["decode_tok_per_s"]
        assert figure["low"] < figure["value"] < figure["high"]
    assert fast["speed"]["prefill_tok_per_s"]["value"] > slow["speed"]["prefill_tok_per_s"]["value"]


def test_too_little_memory_is_said(capsys: pytest.CaptureFixture[str], llama: Path) -> None:
    """A device that needs more than is free on it is named in a note."""
    assert main(["inspect", str(llama), "--device", "CUDA0=1MiB"]) == 0
    assert "CUDA0 has 1.00 MiB free and needs" in capsys.readouterr().out


def test_fit_reaches_for_a_target(capsys: pytest.CaptureFixture[str], llama: Path) -> None:
    """A speed that some way reaches is exit code 0 and told; one that none reaches is 1 and says so."""
    assert main(["fit", str(llama), "--on", "rtx-3060", "--target", "1tok/s", "--json"]) == 0
    speed = json.loads(capsys.readouterr().out)["speed"]
    assert speed["target_reached"] is True
    assert speed["decode_tok_per_s"]["value"] >= 1
    assert main(["fit", str(llama), "--on", "rtx-3060", "--target", "1e9", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["speed"]["target_reached"] is False


@pytest.mark.parametrize("text", ["fast", "0", "-3tok/s", "inf"])
def test_targets_that_are_none(text: str, capsys: pytest.CaptureFixture[str], llama: Path) -> None:
    """What is no speed is refused with what was expected."""
    with pytest.raises(SystemExit) as stopped:
        main(["fit", str(llama), "--on", "m4", f"--target={text}"])
    assert stopped.value.code == 2
    assert "20tok/s" in capsys.readouterr().err


def test_target_needs_a_machine(
    capsys: pytest.CaptureFixture[str], llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a calibration a target is an error that says how to get one."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert main(["fit", str(llama), "--ram", "4GiB", "--target", "20tok/s"]) == 2
    assert "bench calibrate" in capsys.readouterr().err


def test_published_runs_lie_in_their_ranges(tmp_path: Path) -> None:
    """Nine in ten of the published runs (one of each machine here; the script has all) lie where they are predicted."""
    runs = {run.machine: run for run in published_runs() if run.file_type == "Q4_K_M"}
    predicted = Predicted(list(runs.values()), tmp_path)
    within = 0
    for run in runs.values():
        rate = predicted.seconds(run, machine_classes()[published_machine(run.machine).class_name]).inverse
        within += rate.low <= run.tok_per_s <= rate.high
    assert within >= 0.9 * len(runs)
