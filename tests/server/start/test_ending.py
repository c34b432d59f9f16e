"""What is looked at while a server runs, and how it ends: by a process, its output and its signals."""

import json
import os
import re
import signal
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from tests.server.start.serving import POSIX, TIMEOUT_S, serving


@POSIX
def test_drain(chain_path: Path) -> None:
    """After SIGTERM the stream under way comes to its end, new work and /health are refused, and the exit code is 0."""
    with serving(str(chain_path), "-c", "100000", "--alias", "mine") as server:
        server.wait_until_ready()
        request = server.post(prompt="0", max_tokens=2500, temperature=0, stream=True)
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as stream:
            first = stream.readline()
            server.process.send_signal(signal.SIGTERM)
            deadline = time.monotonic() + TIMEOUT_S
            while server.status(f"{server.url}/health") != 503:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            refused = server.status(server.post(prompt="a"))
            rest = stream.read().decode()
        code = server.process.wait(TIMEOUT_S)
        assert server.process.stderr is not None
        errors = server.process.stderr.read()

    assert json.loads(first[6:])["model"] == "mine"
    assert refused == 503
    assert rest.endswith("data: [DONE]\n\n")
    assert rest.count("data: ") == 2500 + 2 - 1  # the pieces but the first, the last chunk, [DONE]
    assert code == 0, errors
    assert re.match(r"predicted: .* resident and the HTTP side's [\d.]+ MiB$", server.lines[0])


@POSIX
def test_drain_deadline(chain_path: Path) -> None:
    """Generations that do not end in time are cut off, and their clients told; the exit code is still 0."""
    whole = list[Any]()
    with serving(str(chain_path), "-c", "100000", "--drain-timeout", "1") as server:
        server.wait_until_ready()

        def ask() -> None:
            with urllib.request.urlopen(server.post(prompt="0", temperature=0), timeout=TIMEOUT_S) as answer:
                whole.append(json.load(answer))

        asking = threading.Thread(target=ask)
        asking.start()
        with urllib.request.urlopen(server.post(prompt="0", temperature=0, stream=True), timeout=TIMEOUT_S) as stream:
            stream.readline()
            server.process.send_signal(signal.SIGINT)
            rest = stream.read().decode()
            code = server.process.wait(TIMEOUT_S)
        asking.join()
        assert server.process.stderr is not None
        errors = server.process.stderr.read()

    assert code == 0
    assert "cut off" in errors
    assert whole[0]["choices"][0]["finish_reason"] == "cancelled"
    assert '"finish_reason":"cancelled"' in rest
    assert rest.endswith("data: [DONE]\n\n")
    assert "Traceback" not in errors


@POSIX
def test_second_signal(chain_path: Path) -> None:
    """The second signal ends the process at once, with the signal in its exit code."""
    with serving(str(chain_path), "-c", "100000") as server:
        server.wait_until_ready()
        with urllib.request.urlopen(server.post(prompt="0", temperature=0, stream=True), timeout=TIMEOUT_S) as stream:
            stream.readline()
            server.process.send_signal(signal.SIGTERM)
            assert server.process.stderr is not None
            said = [server.process.stderr.readline() for _ in range(2)]
            assert "trained on" in said[0]
            assert "finishing 1 request(s)" in said[1]
            server.process.send_signal(signal.SIGTERM)
            code = server.process.wait(TIMEOUT_S)

    assert code == 128 + signal.SIGTERM


@POSIX
def test_keys_are_read_again(chain_path: Path, tmp_path: Path) -> None:
    """SIGHUP: the file's keys of now open the server; a file without any leaves them as they are."""
    file = tmp_path / "keys"
    file.write_text("old\n")
    with serving(str(chain_path), "-c", "256", "--api-key-file", str(file)) as server:
        server.wait_until_ready()

        def status(key: str) -> int:
            return server.status(urllib.request.Request(f"{server.url}/v1/models", headers={"X-Api-Key": key}))

        def hang_up() -> str:
            server.process.send_signal(signal.SIGHUP)
            assert server.process.stderr is not None
            return server.process.stderr.readline()

        assert (status("old"), status("new")) == (200, 401)
        file.write_text("new\n")
        assert "1 API keys" in hang_up()
        assert (status("old"), status("new")) == (401, 200)
        file.write_text("\n")
        assert "stay as they are" in hang_up()
        assert (status("old"), status("new")) == (401, 200)


@POSIX
def test_overwritten_model_is_told(chain_path: Path, tmp_path: Path) -> None:
    """A model file that is overwritten in place under a server is noticed, and what to do is said."""
    model = tmp_path / "model.gguf"
    model.write_bytes(chain_path.read_bytes())
    with serving(str(model), "-c", "256", "--no-mmap") as server:
        server.wait_until_ready()
        with model.open("r+b") as file:
            file.seek(0, os.SEEK_END)
            file.write(b"x")
        assert server.process.stderr is not None
        line = server.process.stderr.readline()

    assert "overwritten in place" in line
    assert "renaming" in line
