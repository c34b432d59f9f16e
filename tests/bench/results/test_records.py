"""Results are kept with where they come from, and README says what they say."""

import json
import os
from pathlib import Path
from typing import NoReturn

import pytest

from bench.report.readme import README, filled, recorded
from bench.results.records import read_records
from bench.results.run import main
from ggufphys.embedded import MODEL
from tests.bench.report.samples import measured


def test_a_run_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A record holds the command without folders, the machine, the build, the exit code and the whole document."""
    path = tmp_path / "deep" / "results.jsonl"
    for _ in range(2):
        assert main(["-o", str(path), "inspect", str(MODEL), "-c", "512"]) == 0
    first, second = read_records([tmp_path])

    assert first.command == second.command == f"ggufphys inspect {MODEL.name} -c 512"
    assert (first.kind, first.exit) == ("inspect", 0)
    assert first.machine["n_cpus"] > 0
    assert first.build["llama_build"] > 0
    assert first.result["memory"]["total_bytes"] > 0
    assert str(MODEL.parent) not in path.read_text()
    assert "2 CPUs" in first.machine_name or first.machine["n_cpus"] != 2


def test_what_fails_is_not_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A command without a document leaves no record and says what it said."""
    path = tmp_path / "results.jsonl"
    assert main(["-o", str(path), "inspect", str(tmp_path / "nothing.gguf")]) == 2
    assert "nothing.gguf" in capsys.readouterr().err
    assert not path.exists()


def test_readme_has_what_was_recorded() -> None:
    """README's tables of predicted and measured figures are those of bench/results: `make results` writes them."""
    text = README.read_text()

    assert recorded()
    assert filled(text, recorded()) == text


def test_tables_follow_the_records() -> None:
    """Another record is another table, between the same markers."""
    text = "a\n<!-- results: runs -->\nold\n<!-- end of results: runs -->\n" \
           "<!-- results: flags -->\n<!-- end of results: flags -->\nz\n"  # fmt: skip
    two = [measured(process=80 << 20), measured("b.gguf", flags="-c 4096 --no-repack", process=99 << 20)]
    made = filled(text, two)

    assert made.startswith("a\n<!-- results: runs -->\n|  | buffers, MiB: predicted |")
    assert "| tiny | 91.00 | = | 100.00 | 80.00 | 55.0 | 50.0 | 55.0 | 50.0 |" in made
    assert "| b --no-repack | 91.00 |" in made
    assert "A row a run of `ggufphys measure MODEL -c 4096` on A <fast> CPU, 2 CPUs, 2026-01-02." in made
    assert filled(made, two) == made
    with pytest.raises(ValueError, match="expected <!-- results: runs -->"):
        filled("nothing", two)


def test_records_stay_small() -> None:
    """What is committed is under a megabyte, each line a record of schema 1."""
    files = list(Path("bench/results").glob("*.jsonl"))
    assert sum(file.stat().st_size for file in files) < 1 << 20
    for file in files:
        for line in file.read_text().splitlines():
            assert json.loads(line)["schema_version"] == 1


def test_a_folder_that_cannot_be_looked_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an error, not one without results."""

    def denied(path: object) -> NoReturn:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(PermissionError):
        read_records([tmp_path])
