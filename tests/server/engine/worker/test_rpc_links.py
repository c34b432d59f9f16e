"""RPC servers that go, while nothing is computed and in the middle of it; and that come back."""

import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ggufphys.params import Params, rpc_device
from server.engine.events import Failed, Piece
from server.engine.llama.library import load_library
from server.engine.protocol import EngineStatus
from server.engine.request import GenerationRequest
from server.engine.worker import supervised
from server.engine.worker.rpc_links import GONE_S, links, lost
from server.engine.worker.supervised import SupervisedEngine
from tests.server.chain_model import ENDING
from tests.server.engine.worker.test_supervised import GREEDY, TIMEOUT_S, text_of, wait_for
from tests.server.test_rpc_worker import free_port

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="descriptors are shown by Linux, and these options are its")


@LINUX
def test_a_connection_that_ends() -> None:
    """It is seen without reading from it, and among others; machines that say nothing are to be given up."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_server(("127.0.0.1", 0)) as other:
        endpoint, beside = (f"127.0.0.1:{each.getsockname()[1]}" for each in (listener, other))
        assert lost([endpoint]) == ""  # no connection at all
        with (
            socket.create_connection(listener.getsockname()) as ours, socket.create_connection(other.getsockname()),
            listener.accept()[0] as theirs,
        ):  # fmt: skip
            assert lost([endpoint, beside]) == ""
            assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == GONE_S * 1000
            assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            theirs.sendall(b"x")
            assert lost([beside, endpoint]) == ""
            assert ours.recv(1) == b"x"
            theirs.close()
            assert lost([beside, endpoint]) == endpoint
        assert not list(links(endpoint))


def started(port: int) -> "subprocess.Popen[bytes]":
    """A worker that listens."""
    command = [sys.executable, "-m", "ggufphys", "rpc-worker", "--port", str(port), "-t", "1"]
    worker = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert worker.stdout is not None
    assert b"offers" in worker.stdout.readline()
    return worker


def ended(worker: "subprocess.Popen[bytes]") -> None:
    """Kill it."""
    worker.kill()
    worker.communicate()


@LINUX
def test_one_of_two_workers(chain_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is answered while it goes is told; idle, it is noticed; and when it is there again, so is the service."""
    if not load_library().llama_supports_rpc():
        pytest.skip("llama-cpp-python is built without RPC")
    monkeypatch.setattr(supervised, "WORKER", "tests.server.lively_worker")
    ports, warnings = (free_port(), free_port()), list[str]()
    workers = [started(port) for port in ports]
    devices = tuple(rpc_device(f"127.0.0.1:{port}", 1 << 30) for port in ports)
    engine = SupervisedEngine(
        chain_path, Params(n_ctx=100_000, n_threads=1, devices=devices), warn=warnings.append,
    )  # fmt: skip
    try:
        assert engine.wait_until_settled(TIMEOUT_S) is EngineStatus.READY, engine.error
        assert text_of(engine, "!") == ENDING[1:]

        ended(workers[1])  # while nothing is asked
        wait_for(lambda: engine.status is EngineStatus.RESTARTING)
        assert f"the RPC server 127.0.0.1:{ports[1]} has hung up" in str(engine.error)
        workers[1] = started(ports[1])
        wait_for(lambda: engine.status is EngineStatus.READY)
        assert text_of(engine, "!") == ENDING[1:]

        running = engine.submit(GenerationRequest(prompt=engine.tokenize("0"), sampling=GREEDY))
        while not isinstance(running.next_event(TIMEOUT_S), Piece):
            pass
        ended(workers[0])  # while it answers
        while not isinstance(event := running.next_event(TIMEOUT_S), Failed):
            assert isinstance(event, Piece)
        assert event.fault == "worker"
        assert f"127.0.0.1:{ports[0]}" in event.message
        wait_for(lambda: "does not answer" in str(engine.error))
        workers[0] = started(ports[0])
        deadline = time.monotonic() + TIMEOUT_S
        while engine.status is not EngineStatus.READY:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert text_of(engine, "!") == ENDING[1:]
    finally:
        engine.close()
        for worker in workers:
            ended(worker)
    assert not [line for line in warnings if "repacked" in line]
