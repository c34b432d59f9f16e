"""What is left when a signal ends a command in the middle? Nothing, and no child."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from ggufphys.embedded import MODEL

CALIBRATE = (["bench", "calibrate", "--threads", "1"], "bench.calibrate.child")
MEASURE = (["measure", str(MODEL), "-c", "8192", "-p", "8000"], "bench.measure.child")
LOGITS = (["verify", str(MODEL), "--logits", "--prompt-tokens", "400"], "refengine.peers.llama_child")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
@pytest.mark.parametrize(("words", "child"), [CALIBRATE, MEASURE, LOGITS], ids=["calibrate", "measure", "verify"])
def test_a_signal_leaves_nothing(words: list[str], child: str, number: signal.Signals, tmp_path: Path) -> None:
    """Whatever signal ends a command: the children are gone, and so is what was half written; the exit code says it."""
    pytest.importorskip("llama_cpp")
    folders = {name: tmp_path / name for name in ("cache", "tmp")}
    for folder in folders.values():
        folder.mkdir()
    places = {"XDG_CACHE_HOME": str(folders["cache"]), "TMPDIR": str(folders["tmp"])}
    command = [sys.executable, "-m", "ggufphys", *words]
    was = signal.signal(number, signal.SIG_DFL)  # by nohup hang-ups are ignored, and in children, too
    with subprocess.Popen(command, env={**os.environ, **places}, stderr=subprocess.PIPE, text=True) as process:
        signal.signal(number, was)
        children = _children(process.pid, child)
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    _, alive = psutil.wait_procs(children, timeout=10)

    assert process.returncode == 128 + number
    assert "Traceback" not in said
    assert said.endswith(
        "ggufphys: interrupted\n" if number == signal.SIGINT else f"ggufphys: ended by {number.name}\n"
    )
    assert alive == []
    assert [path for path in tmp_path.rglob("*") if path.is_file() or "tmp" in path.parent.name] == []


def _children(pid: int, module: str) -> list[psutil.Process]:
    """The process's children, as soon as one runs the module."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        children = psutil.Process(pid).children(recursive=True)
        if any(module in " ".join(child.cmdline()) for child in children):
            time.sleep(1)  # in the middle
            return children
        time.sleep(0.02)
    raise AssertionError(f"no child ran {module}")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signal")
def test_what_is_ignored_stays_so() -> None:
    """Under nohup the end of the terminal ends no command."""
    code = (
        "import os, signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "from ggufphys.interrupts import end_by_signals; end_by_signals(); os.kill(os.getpid(), signal.SIGHUP)\n"
        "print('goes on')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "goes on\n"
