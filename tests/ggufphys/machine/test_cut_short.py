"""A model file that is cut short while it is read: which one, how long it is and was, exit code 3."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ggufphys import open_gguf
from ggufphys.cli import main
from ggufphys.embedded import MODEL
from ggufphys.gguf.lengths import cut_short, kept_lengths

# A command's process in which a function, just before it is called, sees the file cut short behind its header.
SCRIPT = """
import importlib, os, sys
from ggufphys.cli import process
path, module, name, *sys.argv[1:] = sys.argv[1:]
owner = importlib.import_module(module)
*inner, name = name.split(".")
for part in inner:
    owner = getattr(owner, part)
original = getattr(owner, name)
def cut(*args, **kwargs):
    os.truncate(path, 3_000_000)
    return original(*args, **kwargs)
setattr(owner, name, cut)
sys.exit(process())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not say which mapping it was")
@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("refengine.checks.blocks tensor_samples", "verify MODEL --all --types F16"),
        ("refengine.checks.logits steps", "verify MODEL --logits --prompt-tokens 4 --decode-tokens 1"),
        ("bench.quality.readers LlamaReader.logits", "bench quality MODEL --chunks 1 -c 64 -t 2"),
        ("bench.quality.readers NumpyReader.logits", "bench quality MODEL --base-engine refengine --chunks 1 -c 64"),
        ("bench.measure.llama run_child", "measure MODEL -c 64 -n 1"),
        ("bench.measure.numpy_engine run_child", "measure MODEL -c 64 -n 1 --engine numpy"),
    ],
)
def test_a_file_that_is_cut_short(place: str, words: str, tmp_path: Path) -> None:
    """Whoever reads it, numpy, llama.cpp in this process or in another: no process dies of it without a word."""
    path = tmp_path / "model.gguf"
    shutil.copy(MODEL, path)
    nbytes = path.stat().st_size
    arguments = [str(path) if word == "MODEL" else word for word in words.split()]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(path), *place.split(), *arguments],
        capture_output=True, text=True, check=False, timeout=120,
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")},
    )  # fmt: skip
    told = f"ggufphys: error: {path}: the file was cut short while it was read: 3,000,000 bytes are there"
    assert (done.returncode, done.stdout) == (3, ""), done.stderr
    assert f"{told}, expected {nbytes:,} as before" in done.stderr


def test_a_file_of_an_earlier_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is rewritten, shorter, between two commands of a process is none that was cut under one."""
    path = tmp_path / "model.gguf"
    shutil.copy(MODEL, path)
    assert main(["inspect", str(path), "-c", "64"]) == 0
    with path.open("r+b") as file:
        file.truncate(3_000_000)
    assert main(["inspect", str(MODEL), "-c", "64", "-b", "1"]) == 2
    assert "cut short" not in capsys.readouterr().err


def test_nothing_is_kept_for_a_library(tmp_path: Path) -> None:
    """Whoever opens files without a command leaves no trace of them; a command keeps them to its end alone."""
    path = tmp_path / "model.gguf"
    shutil.copy(MODEL, path)
    with open_gguf(path), path.open("r+b") as file:
        file.truncate(3_000_000)
        assert not cut_short()
    with kept_lengths():
        with kept_lengths(), open_gguf(path), path.open("r+b") as file:
            file.truncate(2_000_000)
        assert "2,000,000 bytes are there, expected 3,000,000" in cut_short()
    assert not cut_short()
