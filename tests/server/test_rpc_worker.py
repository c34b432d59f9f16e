"""`ggufphys rpc-worker`: a worker in a process of its own, and a server whose layers lie on it."""

import json
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from ggufphys.cli import main
from tests.server.start.serving import POSIX, ROOT, TIMEOUT_S, serving


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@POSIX
def test_model_on_a_worker(chain_path: Path) -> None:
    """The server says what is predicted for each node, then answers as it does alone; a signal ends the worker."""
    port = free_port()
    command = [sys.executable, "-m", "ggufphys", "rpc-worker", "--port", str(port), "-t", "1"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as worker:
        try:
            assert worker.stdout is not None
            line = worker.stdout.readline()
            if not line and worker.stderr is not None and "without RPC" in worker.stderr.read():
                pytest.skip("llama.cpp is built without RPC")
            assert f"127.0.0.1:{port} offers CPU" in line
            with serving(str(chain_path), "-c", "256", "--rpc", f"127.0.0.1:{port}=1GiB") as server:
                said = [server.lines[1], *server.extra]
                server.wait_until_ready()
                request = server.post(prompt="!", max_tokens=5, temperature=0)
                with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
                    text = json.load(response)["choices"][0]["text"]
        finally:
            worker.send_signal(signal.SIGTERM)
        assert worker.wait(TIMEOUT_S) == -signal.SIGTERM

    assert any(f"RPC0[127.0.0.1:{port}]: " in line for line in said)
    assert text.startswith("Hé")


def test_address_in_use(capsys: pytest.CaptureFixture[str]) -> None:
    """A port that is taken is named instead of ending the process inside llama.cpp."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert main(["rpc-worker", "--port", str(taken.getsockname()[1])]) in (1, 2)
    assert "--port" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "said"),
    [("--port 0", "1 to 65535"), ("--threads 513", "at most 512"), ("--host=", "--host is empty"),
     ("--device X", "no device 'X'"), ("--device ,", "no device ''"),
     ("--host name.invalid", "choose another --host or --port")],
)  # fmt: skip
def test_what_no_worker_can_be(flags: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Where nobody could reach it, or llama.cpp would end itself, that is told; all of it is usage."""
    try:
        code = main(["rpc-worker", *flags.split()])
    except SystemExit as ended:
        code = int(str(ended.code))
    err = capsys.readouterr().err
    if "without RPC" in err:
        pytest.skip("llama-cpp-python is built without RPC")
    assert code == 2
    assert said in err


def test_a_cache_that_cannot_be_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file in the folder's place is told by the flag's name, not as a model that cannot be read."""
    (tmp_path / "file").touch()
    assert main(["rpc-worker", "--port", str(free_port()), "--cache", str(tmp_path / "file" / "x")]) == 1
    err = capsys.readouterr().err
    assert "--cache" in err or "without RPC" in err
