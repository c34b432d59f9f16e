"""The quantised files made from the embedded model on first use."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bench.cache import cache_folder
from bench.corpus import held_out
from bench.derive import DeriveError, derived
from bench.quality.command import judged_rows
from bench.quality.rows import Candidate
from bench.quality.texts import Setting
from ggufphys import open_gguf
from ggufphys.embedded import MODEL
from ggufphys.errors import OutputError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "ggufphys"


@pytest.mark.parametrize("file_type", ["Q8_0", "Q6_K", "Q4_K_M", "Q4_0"])
def test_derived_file_has_its_type_and_runs(file_type: str) -> None:
    """The header says the type asked for, the file is smaller, and the model still predicts unseen text."""
    path = derived(file_type)

    with open_gguf(path) as gguf:
        assert gguf.file_type == file_type
        assert gguf.name == "Stdlib 6M"
    assert path.stat().st_size < MODEL.stat().st_size
    (row,) = judged_rows([Candidate(name=file_type, path=path)], Setting(text=held_out()[0].text[:4000]))
    assert row["ratio"] < 0.35


def test_quantised_file_can_be_quantised_again() -> None:
    """Of a file that is quantised already, another type is made, under a name of its own."""
    again = derived("Q4_0", derived("Q8_0"))

    assert again != derived("Q4_0")
    with open_gguf(again) as gguf:
        assert gguf.file_type == "Q4_0"


def test_second_call_makes_nothing(cache: Path) -> None:
    """A file in the cache is given back as it is, and nothing else lies beside it."""
    first = derived("Q8_0")
    made = first.stat().st_mtime_ns

    assert derived("Q8_0") == first
    assert first.stat().st_mtime_ns == made
    assert list(cache.iterdir()) == [first]


def test_callers_at_once_agree(cache: Path) -> None:
    """Four callers of an empty cache get the same whole file, and no partial one stays."""
    with ThreadPoolExecutor(4) as pool:
        paths = set(pool.map(derived, ["Q8_0"] * 4))

    assert len(paths) == 1
    assert list(cache.iterdir()) == list(paths)
    with open_gguf(paths.pop()) as gguf:
        assert not gguf.missing_bytes


def test_another_source_is_another_file(tmp_path: Path) -> None:
    """The cache is keyed by content: a copy shares the key, a changed file does not."""
    same, changed = tmp_path / "same" / MODEL.name, tmp_path / "changed" / MODEL.name
    for path, content in ((same, MODEL.read_bytes()), (changed, MODEL.read_bytes()[:-2] + b"\0\0")):
        path.parent.mkdir()
        path.write_bytes(content)

    assert derived("Q8_0", same) == derived("Q8_0")
    assert derived("Q8_0", changed) != derived("Q8_0")


def test_f16_is_the_embedded_file_itself(cache: Path) -> None:
    """Nothing is derived for the type that ships."""
    assert derived("F16") == MODEL
    assert not cache.exists()


def test_unknown_type_is_refused() -> None:
    """The message lists the names that exist."""
    with pytest.raises(ValueError, match=r"'Q4_X'.*Q4_K_M"):
        derived("Q4_X")


def test_cache_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the folder and the way out."""
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))

    with pytest.raises(OutputError, match=r"cannot write .*/file/ggufphys.*XDG_CACHE_HOME"):
        derived("Q8_0")


def test_quantiser_that_refuses_leaves_nothing(cache: Path) -> None:
    """A type that needs an importance matrix fails with the quantiser's reason, without a file."""
    with pytest.raises(DeriveError, match="imatrix"):
        derived("IQ2_XS")

    assert list(cache.iterdir()) == []


def test_a_disk_that_is_full_is_told(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not by the quantiser's "iostream error", but by how much room there is and what to set."""
    monkeypatch.setattr("bench.derive.FULL_BYTES", 1 << 62)
    with pytest.raises(OutputError, match=r"no room for IQ2_XS of .*: .* has .* free: .*XDG_CACHE_HOME"):
        derived("IQ2_XS")

    assert list(cache.iterdir()) == []


def test_quantiser_that_dies_does_not_take_the_caller_along(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child killed by a signal is an error that names the signal."""
    dying = tmp_path / "dying"
    dying.write_text("#!/bin/sh\nkill -SEGV $$\n")
    dying.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(dying))

    with pytest.raises(DeriveError, match="SIGSEGV"):
        derived("Q8_0")

    assert list(cache.iterdir()) == []


def test_cache_is_in_the_home_folder_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without XDG_CACHE_HOME it is ~/.cache/ggufphys."""
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))

    assert cache_folder() == tmp_path / ".cache" / "ggufphys"


def test_old_files_make_room(cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Behind a new file the cache is held to its bound, and what a killed run had begun is gone."""
    monkeypatch.setattr("bench.derive.MOST_BYTES", 8 << 20)
    cache.mkdir()
    old = cache / "m-q8_0-0123456789abcdef.gguf"
    old.write_bytes(bytes(4 << 20))
    os.utime(old, (0, 0))
    with subprocess.Popen([sys.executable, "-c", ""]) as dead:
        dead.wait()
    left = cache / f".m-q8_0-0123456789abcdef.{dead.pid}-3.partial.gguf"
    left.touch()
    path = derived("Q8_0")
    assert list(cache.iterdir()) == [path]
    assert capsys.readouterr().err.count("removed ") == 2


@pytest.mark.parametrize("left", [0, 100, 1 << 20])
def test_a_damaged_file_is_made_again(left: int, capsys: pytest.CaptureFixture[str]) -> None:
    """What a full or broken disk has left of a kept file is no model any more: nobody is sent to remove it by hand."""
    path = derived("Q8_0")
    whole = path.read_bytes()
    os.truncate(path, left)
    assert derived("Q8_0") == path
    assert path.read_bytes() == whole
    assert capsys.readouterr().err == f"ggufphys: {path} is damaged, and made again\n"
