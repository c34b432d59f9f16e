"""Measuring children and the parent that listens to them."""

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from bench import pages, waiting
from bench.running.telling import answer
from bench.speed.events import events
from ggufphys.errors import GGUFPhysError

CODE = (
    "import sys\nfrom bench.running.telling import emit, run_telling\n"
    "def main():\n    emit(first=1)\n    sys.stdin.readline()\n    {}\n    return 0\nrun_telling(main)"
)


def child(line: str) -> "subprocess.Popen[str]":
    """A child that tells something, waits, and does what the line says."""
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, "-c", CODE.format(line)], stdin=pipe, stdout=pipe, stderr=pipe, text=True, bufsize=1
    )


def test_whatever_fails_is_told() -> None:
    """The parent hears of an error in one line."""
    with child("raise KeyError('x')") as process:
        out, err = process.communicate("\n")
    assert [*map(json.loads, out.splitlines())][1]["kind"] == "KeyError"
    assert (process.returncode, err) == (1, "")


def test_a_parent_that_is_gone_hears_nothing() -> None:
    """Nothing is written over the terminal of whoever ended it."""
    with child("emit(second=2)") as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        process.stdin.write("\n")
        assert process.stderr.read() == ""
    assert process.returncode == 1


def test_a_child_that_fails_is_quoted() -> None:
    """How it ended and its last lines are in the error: the first ones may be thousands of llama.cpp's."""
    code = "import os, sys\nfor i in range(9): print('line', i, file=sys.stderr, flush=True)\nos.abort()"
    with pytest.raises(RuntimeError, match="ended with SIGABRT") as caught:
        answer([sys.executable, "-c", code], {})
    assert str(caught.value).splitlines()[1:] == ["  it said last:", *(f"  line {i}" for i in range(4, 9))]


def test_a_silent_child_that_fails() -> None:
    """Nothing is said of nothing."""
    with pytest.raises(RuntimeError) as caught:
        answer([sys.executable, "-c", "raise SystemExit(3)"], {})
    assert str(caught.value) == "the measuring process ended with code 3"


@pytest.mark.parametrize("program", [pages, waiting])
def test_measuring_what_is_no_model(program: ModuleType, tmp_path: Path) -> None:
    """What the child says of the file is what is told."""
    (tmp_path / "empty.gguf").touch()
    words = [str(tmp_path / "empty.gguf"), "--rounds", "1", *(["--busy", "0"] if program is waiting else [])]
    with pytest.raises(RuntimeError, match="empty.gguf"):
        program.main(words)


def test_a_measuring_process_that_ends_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it tells no error itself, its last lines on stderr are the error."""
    (tmp_path / "ends_early.py").write_text("import sys\nsys.exit('the machine is on fire')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(GGUFPhysError, match="ended with code 1\n  it said last:\n  the machine is on fire"):
        list(events("ends_early", {"path": "x.gguf"}))
