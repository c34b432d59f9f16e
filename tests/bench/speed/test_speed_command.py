"""`bench speed`'s command line: exit codes of files that cannot be measured, and of what is no number."""

import json
import os
from pathlib import Path

import pytest

from ggufphys.cli import main
from ggufphys.embedded import MODEL
from tests.ggufphys.models import llama_metadata, llama_tensors, write_model

pytest.importorskip("llama_cpp")


@pytest.fixture
def rates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A calibration that has nothing in it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "rates.json"
    path.write_text(json.dumps({"schema_version": 1}))
    return path


@pytest.mark.parametrize(
    ("content", "code", "message"),
    [
        (None, 3, "No such file"),
        (b"", 3, "the file is empty"),
        (b"a text, longer than any magic", 3, "not a GGUF file"),
        (MODEL.read_bytes()[:5000], 3, "truncated"),
        (MODEL.read_bytes()[:6_000_000], 3, "cannot be run: tensor data is missing"),
    ],
)
def test_files_that_cannot_be_measured(
    content: bytes | None, code: int, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The exit code is what other commands have for such a file, its path is said once, and no table is printed."""
    path = tmp_path / "m.gguf"
    if content is not None:
        path.write_bytes(content)
    assert main(["bench", "speed", str(path), "--calibrate"]) == code
    out, err = capsys.readouterr()
    assert (out, err.count(str(path))) == ("", 1)
    assert message in err


def test_of_several_the_largest_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each file that cannot be measured is told; an architecture that nobody knows makes it 4."""
    unknown = write_model(tmp_path / "new.gguf", llama_metadata("llama9"), llama_tensors())
    assert main(["bench", "speed", str(unknown), str(tmp_path / "none.gguf"), "--calibrate"]) == 4
    err = capsys.readouterr().err
    assert "'llama9'" in err
    assert "none.gguf: No such file" in err


def test_a_wrong_path_is_told_before_rates_are_asked_for(rates: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody calibrates for a minute to hear then that there is no such file."""
    assert main(["bench", "speed", str(rates.with_name("none.gguf"))]) == 3
    err = capsys.readouterr().err
    assert "none.gguf: No such file" in err
    assert "rates" not in err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--threads nan", "'nan' is not a count"),
        ("--threads 0", "at least 1"),
        ("--repack yes", "expected on, off, or on,off"),
        ("--depths -1", "'-1' is not a count"),
        ("--prompts 0", "at least 1"),
        ("--depths= --prompts= --batches=", "nothing is asked"),
        ("--calibration {text}", "not JSON"),
        ("", "this machine's rates are not known"),
    ],
)
def test_usage(flags: str, message: str, rates: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is no number, no switch or no calibration is exit code 2, and says what was expected."""
    rates.with_name("text").write_text("a text")
    words = flags.format(text=rates.with_name("text")).split()
    try:
        code = main(["bench", "speed", str(MODEL), *words])
    except SystemExit as stop:
        code = int(stop.code or 0)
    assert code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("line", ["measure", "bench speed", "bench calibrate"])
def test_without_llama_cpp(line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """What runs llama.cpp in a child names the extra that has it, before there is a child; exit code 2."""
    monkeypatch.setattr(
        "server.engine.llama.library.importlib.util.find_spec",
        lambda name: None if name == "llama_cpp" else pytest.fail(name),
    )
    words = line.split() if line == "bench calibrate" else [*line.split(), str(MODEL)]
    assert main([*words, *(["-o", os.devnull] if line == "bench calibrate" else [])]) == 2
    assert "with its extra 'all'" in capsys.readouterr().err
