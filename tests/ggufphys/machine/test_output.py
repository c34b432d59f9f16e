"""Files that commands write: whole, or not there at all."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ggufphys.errors import OutputError
from ggufphys.machine.output import unfinished_name, whole_file, write_whole


def test_whole_or_not_at_all(tmp_path: Path) -> None:
    """An error in the middle leaves what was there before, and nothing beside it; without one the new text is there."""
    path = tmp_path / "page.html"
    path.write_text("before")

    def broken() -> None:
        with whole_file(path) as partial:
            partial.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken()
    assert (path.read_text(), list(tmp_path.iterdir())) == ("before", [path])
    write_whole(path, "after")
    assert (path.read_text(), list(tmp_path.iterdir())) == ("after", [path])


def test_a_link_stays_one(tmp_path: Path) -> None:
    """Of a link what it leads to is written."""
    link, target = tmp_path / "link", tmp_path / "target"
    link.symlink_to(target)
    write_whole(link, "text")
    assert (link.is_symlink(), target.read_text()) == (True, "text")


def test_a_link_to_itself(tmp_path: Path) -> None:
    """Links that lead back to themselves are nothing to write to, and say so."""
    for name, other in (("a", "b"), ("b", "a")):
        (tmp_path / name).symlink_to(tmp_path / other)
    with pytest.raises(OutputError, match="cannot write .*: it is a link that leads back to itself"):
        write_whole(tmp_path / "a", "text")


def test_what_is_no_file_is_written_itself() -> None:
    """A device stays what it is."""
    write_whole(Path(os.devnull), "text")
    assert not Path(os.devnull).is_file()


def test_where_nothing_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder, and one that is not there, are errors of usage; a full disk is an error that says what is left."""
    for path, message in ((tmp_path, "is a folder"), (tmp_path / "none" / "x", "there is no folder")):
        with pytest.raises(ValueError, match=message):
            write_whole(path, "text")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OutputError, match="cannot write .*x.html: No space left on device; no part of it is left"):
        write_whole(tmp_path / "x.html", "text")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    """However far above the file the way ends, it is the file that cannot be written, with the advice."""
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "a" / "b" / "x.json"
    with (
        pytest.raises(OutputError, match="cannot write .*x.json: Not a directory; no part of it is left: go elsewhere"),
        whole_file(path, makes_folder=True, advice=": go elsewhere"),
    ):
        pass


def test_a_killed_run_leaves_nothing_for_ever(tmp_path: Path) -> None:
    """What a killed writer of a file had begun goes when that file is written again; others' unfinished files stay."""
    path = tmp_path / "page[1].html"
    code = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom ggufphys.machine.output import whole_file\n"
        "with whole_file(Path(sys.argv[1])): os.kill(os.getpid(), signal.SIGKILL)"
    )
    for name in (path.name, "page1.html"):
        killed = subprocess.run([sys.executable, "-c", code, tmp_path / name], check=False)
        assert killed.returncode == -signal.SIGKILL
    running = tmp_path / unfinished_name(path.name)
    running.touch()
    (left,) = tmp_path.glob(".page1.*.partial.html")
    assert len(list(tmp_path.iterdir())) == 3
    write_whole(path, "text")
    assert sorted(tmp_path.iterdir()) == sorted((left, path, running))


def test_two_writers_of_one_process(tmp_path: Path) -> None:
    """Each has an unfinished file of its own, and the last to end is what stays."""
    path = tmp_path / "x.json"
    with whole_file(path) as first:
        with whole_file(path) as second:
            second.write_text("second")
        first.write_text("first")
    assert (path.read_text(), list(tmp_path.iterdir())) == ("first", [path])


def test_an_error_of_what_is_read_meanwhile_is_its_own(tmp_path: Path) -> None:
    """A file that is missing while another is written is not told as one that cannot be written."""
    with pytest.raises(FileNotFoundError), whole_file(tmp_path / "x"):
        (tmp_path / "none").read_text()
    assert list(tmp_path.iterdir()) == []
