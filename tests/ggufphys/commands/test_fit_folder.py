"""`fit FOLDER`: what of these models runs there, and how?"""

import json
import os
import shlex
from pathlib import Path
from typing import Any, NoReturn

import pytest

from ggufphys.cli import main
from tests.ggufphys.models import shape_header, tiny_llama


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A folder with a small model, a large one and a broken file."""
    tiny_llama(tmp_path / "tiny.gguf")
    shape_header(tmp_path / "large.gguf", "mistral-7b")
    (tmp_path / "cut.gguf").write_bytes((tmp_path / "tiny.gguf").read_bytes()[:100])
    return tmp_path


def rows(capsys: pytest.CaptureFixture[str], code: int, *arguments: object) -> dict[str, dict[str, Any]]:
    """The rows of the JSON document by file name."""
    assert main(["fit", "--json", *map(str, arguments)]) == code
    return {Path(row["path"]).name: row for row in json.loads(capsys.readouterr().out)["files"]}


def test_what_fits(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each model is run in the way that `fit` finds for it alone; what cannot be read is a row with the reason."""
    found = rows(capsys, 0, models, "--memory", "4GiB")
    assert main(["fit", "--json", str(models / "large.gguf"), "--memory", "4GiB"]) == 0
    alone = json.loads(capsys.readouterr().out)

    assert found["large.gguf"]["flags"] == alone["fit"]["flags"]
    assert found["large.gguf"]["n_ctx"] == alone["params"]["n_ctx"]
    assert 0 < found["large.gguf"]["n_offloaded"] < found["large.gguf"]["n_layers"] == 33
    assert found["tiny.gguf"]["n_offloaded"] == 3
    assert found["cut.gguf"]["fits"] is None
    assert found["cut.gguf"]["reason"].startswith("truncated: ")
    assert {tuple(row) for row in found.values()} == {tuple(found["tiny.gguf"])}


def test_main_memory(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What of a folder runs in 2 GiB is one command, and its flags are ones that `inspect` takes."""
    found = rows(capsys, 0, models, "--ram", "2GiB", "--device", "none")
    assert {name: row["fits"] for name, row in found.items()} == {
        "tiny.gguf": True, "large.gguf": False, "cut.gguf": None,
    }  # fmt: skip
    assert found["large.gguf"]["tightest"]["over_bytes"] > 0
    assert main(["inspect", str(models / "tiny.gguf"), *found["tiny.gguf"]["flags"]]) == 0

    capsys.readouterr()
    assert main(["fit", str(models), "--ram", "2GiB", "--device", "none"]) == 0
    out = capsys.readouterr().out
    assert "1 of 2 fit" in out
    assert shlex.join(found["tiny.gguf"]["flags"]) in out


def test_exit_codes(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """1 when none fits, 3 when none is readable or none is there, 2 for what belongs to one model."""
    rows(capsys, 1, models, "--ram", "1MiB", "--device", "none")
    (models / "tiny.gguf").unlink()
    (models / "large.gguf").unlink()
    rows(capsys, 3, models, "--ram", "1GiB", "--device", "none")
    assert main(["fit", str(models), "--ram", "1GiB", "--device", "none"]) == 3
    assert "0 of 0" not in capsys.readouterr().out
    assert main(["fit", str(models), "--ram", "1GiB", "--lora", "a.gguf"]) == 2
    (models / "cut.gguf").unlink()
    assert main(["fit", str(models), "--ram", "1GiB"]) == 3
    assert "no *.gguf file there" in capsys.readouterr().err


def test_speed(models: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder's models are chosen and judged by speed as each alone is: --on and --target are honoured."""
    found = rows(capsys, 0, models, "--on", "rtx-3060")
    for name in ("tiny.gguf", "large.gguf"):
        assert main(["fit", "--json", str(models / name), "--on", "rtx-3060"]) == 0
        alone = json.loads(capsys.readouterr().out)
        assert found[name]["flags"] == alone["fit"]["flags"]
        assert found[name]["tok_per_s"] == alone["speed"]["decode_tok_per_s"]
    wanted = found["large.gguf"]["tok_per_s"]["value"] + 1
    assert main(["fit", str(models), "--on", "rtx-3060", f"--target={wanted}"]) == 0
    assert "2 of 2 fit, 1 of these too slow" in capsys.readouterr().out
    assert rows(capsys, 1, models, "--on", "rtx-3060", "--target", "1e9")["tiny.gguf"]["enough"] is False

    monkeypatch.setenv("XDG_CACHE_HOME", str(models))
    assert main(["fit", str(models), "--ram", "4GiB", "--target", "20tok/s"]) == 2
    assert "bench calibrate" in capsys.readouterr().err


def test_a_folder_that_cannot_be_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is named with the reason, not only as one without models."""

    def denied(path: object) -> NoReturn:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", denied)
    assert main(["fit", str(tmp_path), "--ram", "8GiB"]) == 3
    assert f"skipped {tmp_path}: Permission denied" in capsys.readouterr().err
