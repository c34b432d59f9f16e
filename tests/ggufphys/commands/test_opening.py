"""The subcommands on remote models: reports as for files, errors with exit code 3, usage with 2, Ctrl-C clean."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ggufphys.cli import main
from ggufphys.commands.opening import FetchProgress
from tests.ggufphys.gguf.http_server import Site, serving
from tests.ggufphys.gguf.remote_files import model, shards, without_environment


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    without_environment(monkeypatch, tmp_path)


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A server with one model, which is the Hub too."""
    files = {"/tiny.gguf": model(), "/me/tiny/resolve/main/tiny.gguf": model()}
    with serving(Site(files=files)) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        running.files["/api/models/me/tiny/tree/main?recursive=1"] = json.dumps(
            [{"type": "file", "path": f"{name}.gguf", "size": 1} for name in "ab"]
        ).encode()
        yield running


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout, stderr."""
    code = main(arguments)
    out = capsys.readouterr()
    return code, out.out, out.err


def test_inspect(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """A remote model's report is a file's, with its address and without a false alarm about missing data."""
    code, out, err = run(capsys, "inspect", site.url + "/tiny.gguf", "-c", "512")
    document: dict[str, Any] = json.loads(run(capsys, "inspect", "--json", site.url + "/tiny.gguf", "-c", "512")[1])

    assert (code, err) == (0, "")
    assert "on its server" in out
    assert "weights mapped from tiny.gguf" in out
    assert "note: remote: only the header was read" in out
    assert "missing" not in out
    assert document["model"]["path"] == site.url + "/tiny.gguf"
    assert document["model"]["file_bytes"] == len(site.files["/tiny.gguf"])
    assert document["model"]["missing_bytes"] == 0
    assert document["memory"]["context_bytes"] > 0


def test_tensors(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """The tensor table of a split remote model is that of all its shards."""
    site.files |= {f"/{name}": data for name, data in shards("m").items()}
    code, out, _ = run(capsys, "tensors", f"{site.url}/m-00002-of-00003.gguf")

    assert code == 0
    assert "20 tensors" in out


def test_no_cache(site: Site, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Headers are kept for the next time, unless --no-cache says otherwise."""
    run(capsys, "inspect", "--no-cache", site.url + "/tiny.gguf")
    assert not (tmp_path / "cache").exists()
    run(capsys, "inspect", site.url + "/tiny.gguf")
    sent = site.sent_bytes
    run(capsys, "tensors", site.url + "/tiny.gguf")
    assert site.sent_bytes == sent


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ("{url}/gone.gguf", 3, "404 Not Found: no such file"),
        ("hf:me/gone", 3, "404 Not Found"),
        ("hf:me/tiny", 2, "hf:me/tiny: 2 GGUF files; say which:\n  hf:me/tiny:a.gguf  1 B\n  hf:me/tiny:b.gguf  1 B"),
        ("hf:tiny", 2, "expected hf:owner/repo[@revision][:file]"),
        ("http://", 2, "is not an address"),
    ],
)
def test_errors(site: Site, capsys: pytest.CaptureFixture[str], text: str, code: int, message: str) -> None:
    """What cannot be fetched is exit code 3, what is not said clearly 2; one error, nothing on stdout."""
    found, out, err = run(capsys, "inspect", text.format(url=site.url))

    assert (found, out) == (code, "")
    assert err.startswith("ggufphys: error: ")
    assert message in err


def test_interrupt(site: Site) -> None:
    """Ctrl-C while a server is silent ends the program at once, without a traceback."""
    site.pause_s = 30.0
    site.on_request = lambda path: os.kill(process.pid, signal.SIGINT)
    site.files |= {f"/{name}": data for name, data in shards("m").items()}
    process = subprocess.Popen(
        [sys.executable, "-m", "ggufphys", "inspect", f"{site.url}/m-00001-of-00003.gguf"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        try:
            out, err = process.communicate(timeout=20)
        finally:
            process.kill()

    assert (process.returncode, out, err) == (130, "", "ggufphys: interrupted\n")


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    """Progress shows on a terminal only, only after a second, and leaves nothing behind."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    terminal, file = Terminal(), io.StringIO()
    with FetchProgress(terminal) as shown, FetchProgress(file) as hidden:
        for progress in (shown, hidden):
            progress(1000)
        assert terminal.getvalue() == ""
        now[0] = 1.5
        for progress in (shown, hidden):
            progress(1048)
    assert terminal.getvalue() == "\r\x1b[Kfetching the header: 2.00 KiB\r\x1b[K"
    assert file.getvalue() == ""
