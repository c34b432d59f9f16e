"""Recording a build of llama.cpp, and watching for new ones. Slow: a wheel is fetched, small models are predicted."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import watch_builds
from scripts.record_build import ask_about, fetch
from tests import archs, builds

C_LIBRARY = os.environ.get("GGUFPHYS_C_LIBRARY")  # a newer Linux's, unpacked, for machines whose own is older
BUILD = 11548


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux" or platform.machine() != "x86_64", reason="the wheels are for Linux x86-64")
def test_a_build_says_what_it_said(tmp_path: Path) -> None:
    """A fetched wheel gives the rows that its record has."""
    pytest.importorskip("cffi")
    if not C_LIBRARY and tuple(map(int, platform.libc_ver()[1].split("."))) < (2, 38):
        pytest.skip("the wheels want glibc 2.38 (set GGUFPHYS_C_LIBRARY to a folder with a newer one)")
    try:
        wheel = fetch(BUILD, tmp_path)
    except subprocess.CalledProcessError:
        pytest.skip("no wheel can be fetched")
    names = list(archs.records())[::12]
    files = {name: tmp_path / f"{i}.gguf" for i, name in enumerate(names)}
    for name, path in files.items():
        archs.write(path, name, archs.records()[name].tensors)

    said = ask_about(files, wheel, Path(C_LIBRARY) if C_LIBRARY else None)

    assert said == {name: builds.rows(BUILD)[name] for name in names}


@pytest.mark.slow
def test_what_moved_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A build that is not recorded is compared with the newest record, by architecture, and with what is predicted."""
    newest, known = builds.recorded()[-1], builds.recorded()[:-1]
    rows = builds.rows(newest)
    monkeypatch.setattr(watch_builds, "newest_build", lambda: newest)
    monkeypatch.setattr(watch_builds, "fetch", lambda build, folder: folder)
    monkeypatch.setattr(watch_builds, "commit_of", lambda wheel: "0ce8cd1")
    monkeypatch.setattr(watch_builds, "ask", lambda wheel, c_library: rows)
    monkeypatch.setattr(builds, "recorded", lambda: known)
    monkeypatch.setattr(sys, "argv", ["watch_builds"])

    code = watch_builds.main()
    out = capsys.readouterr().out

    assert f"b{newest} (0ce8cd1), compared with the record of b{known[-1]}" in out
    assert "moved: bert, " in out
    assert (code == 1) == ("unexplained: " in out)


def test_nothing_newer(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Where the newest wheel is recorded there is nothing to do: exit code 2."""
    monkeypatch.setattr(watch_builds, "newest_build", lambda: builds.recorded()[-1])
    monkeypatch.setattr(sys, "argv", ["watch_builds"])
    assert watch_builds.main() == 2
    assert "is recorded" in capsys.readouterr().out
