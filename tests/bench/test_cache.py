"""The cache of derived models and bases: held to its bound, and what is removed is said."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.cache import DERIVED, WANTED_S, cache_folder, make_room, remove_unfinished, used
from ggufphys.gguf.header_cache import default_folder
from ggufphys.machine.output import unfinished_name
from ggufphys.speed import kept

HEX = "0123456789abcdef"


def make(folder: Path, name: str, nbytes: int, days_ago: float) -> Path:
    """A file that was last wanted so long ago."""
    path = folder / name
    path.write_bytes(bytes(nbytes))
    at = time.time() - days_ago * 86_400
    os.utime(path, (at, at))
    return path


def test_the_oldest_make_room(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Files wanted longest ago go until the bound holds; those of today stay; others' files are not touched."""
    old, older, today = (
        make(tmp_path, f"m-{name}-{HEX}.gguf", 100, days) for name, days in (("q8_0", 2), ("q6_k", 3), ("q2_k", 0.1))
    )
    model = make(tmp_path, "mine.gguf", 1000, 9)
    make_room(tmp_path, DERIVED, 250, spared_s=WANTED_S)
    assert [path.exists() for path in (old, older, today, model)] == [True, False, True, True]
    assert f"removed {older} (100 B) to keep to 250 B" in capsys.readouterr().err
    make_room(tmp_path, DERIVED, 50, spared_s=WANTED_S)
    assert [path.exists() for path in (old, today)] == [False, True]


def test_room_for_what_is_needed(tmp_path: Path) -> None:
    """What is going to be written counts, too; what is larger than the bound by itself makes nobody leave."""
    paths = [make(tmp_path, f"base-{i}.logits", 100, i) for i in range(1, 4)]
    make_room(tmp_path, "base-*.logits", 300, needed_bytes=301)
    assert all(path.exists() for path in paths)
    make_room(tmp_path, "base-*.logits", 300, needed_bytes=150)
    assert [path.exists() for path in paths] == [True, False, False]


def test_wanted_again(tmp_path: Path) -> None:
    """A file that is read again counts as new, though when it was written stays as it was."""
    again, other = (make(tmp_path, f"m-{name}-{HEX}.gguf", 100, days) for name, days in (("a", 9), ("b", 2)))
    written = again.stat().st_mtime_ns
    used(again)
    make_room(tmp_path, DERIVED, 100)
    assert (again.exists(), other.exists(), again.stat().st_mtime_ns) == (True, False, written)


def test_unfinished_files_of_killed_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a run that was killed had begun is removed; this process' own, of one that still runs, and what does not
    match are not.
    """
    with subprocess.Popen([sys.executable, "-c", ""]) as dead:
        dead.wait()
    left, other = (make(tmp_path, f".{name}.{dead.pid}-0.partial.logits", 10, 0) for name in ("base-1", "other"))
    mine, alive = make(tmp_path, unfinished_name("base-2.logits"), 10, 0), make(tmp_path, ".m.1-0.partial", 10, 0)
    remove_unfinished(tmp_path, "base-*")
    assert [path.exists() for path in (left, other, mine, alive)] == [False, True, True, True]
    remove_unfinished(tmp_path)
    assert [path.exists() for path in (other, mine, alive)] == [False, True, True]
    assert capsys.readouterr().err.count("of runs that were killed") == 2


def test_a_relative_folder_does_not_count(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It would be another in each working directory; the specification says to ignore it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    for given in ("caches", "./x", "", "~/caches"):
        monkeypatch.setenv("XDG_CACHE_HOME", given)
        ours = tmp_path / ".cache" / "ggufphys"
        assert (cache_folder(), kept.folder(), default_folder()) == (ours, str(ours / "speed"), ours / "headers")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert cache_folder() == tmp_path / "x" / "ggufphys"
