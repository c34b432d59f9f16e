"""The server under clients that leave, a worker that is killed, and a cache that is too small: nothing hangs, nothing
is left over.
"""

import http.client
import json
import os
import random
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from ggufphys.embedded import MODEL
from ggufphys.params import Params
from server.app import create_app
from server.config import ServerConfig
from server.engine.protocol import EngineStatus
from server.engine.worker.supervised import SupervisedEngine
from server.net.http import HttpServer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's"),
]
TIMEOUT_S = 120.0
N_THREADS = 16


@pytest.fixture(scope="module")
def engine() -> Iterator[SupervisedEngine]:
    """A cache of 512 cells for 8 slots: a few requests fill it."""
    engine = SupervisedEngine(MODEL, Params(n_ctx=512, n_seq_max=8, kv_unified=True), max_waiting=200)
    assert engine.wait_until_settled(TIMEOUT_S) is EngineStatus.READY, engine.error
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def server(engine: SupervisedEngine) -> Iterator[HttpServer]:
    app = create_app(ServerConfig(poll_s=0.05), engine)
    with HttpServer(app, host="127.0.0.1", port=0, max_streams=220, max_body_bytes=1 << 20) as server:
        yield server


def ask(server: HttpServer, number: int, *, n_tokens: int = 64) -> tuple[int, bytes]:
    """A streamed request to its end."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT_S)
    body = {"prompt": f"def function_{number}(a, b):\n", "max_tokens": n_tokens, "stream": True, "temperature": 0}
    connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    found = response.status, response.read()
    connection.close()
    return found


def in_threads(n: int, work: "list[int]", call: object) -> None:
    """Do all of the work, in so many threads."""
    lock = threading.Lock()

    def run() -> None:
        while True:
            with lock:
                if not work:
                    return
                item = work.pop()
            call(item)  # type: ignore[operator]

    threads = [threading.Thread(target=run) for _ in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT_S)
        assert not thread.is_alive()


def wait_for_nothing(engine: SupervisedEngine) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while engine.n_pending or engine.counters.n_active or engine.counters.n_waiting or engine.counters.n_cells_busy:
        assert time.monotonic() < deadline, engine.counters
        time.sleep(0.01)


def test_500_disconnects(server: HttpServer, engine: SupervisedEngine) -> None:
    """Five hundred clients leave at a random moment; afterwards nothing is held for them, and work is answered."""
    generator = random.Random(1)
    delays = {i: generator.random() * 0.1 for i in range(500)}

    def leave(number: int) -> None:
        body = json.dumps({"prompt": "x" * (1 + number % 200), "stream": number % 3 > 0, "temperature": 0}).encode()
        head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        with socket.create_connection(("127.0.0.1", server.port), TIMEOUT_S) as connection:
            connection.sendall(head + body)
            time.sleep(delays[number])

    in_threads(N_THREADS, list(range(500)), leave)
    wait_for_nothing(engine)

    status, body = ask(server, 0)
    assert status == 200
    assert body.endswith(b"data: [DONE]\n\n")


def test_200_streams_in_a_small_cache(server: HttpServer, engine: SupervisedEngine) -> None:
    """Two hundred streams over a cache for a few of them all come to their end.

    Whether one is put back for want of room depends on when they come; `engine/llama/test_crowd.py` makes sure that
    one is.
    """
    answers: dict[int, tuple[int, bytes]] = {}
    in_threads(200, list(range(200)), lambda number: answers.__setitem__(number, ask(server, number)))
    wait_for_nothing(engine)

    assert Counter(status for status, _ in answers.values()) == {200: 200}
    assert all(body.endswith(b"data: [DONE]\n\n") for _, body in answers.values())


def test_killed_under_load(server: HttpServer, engine: SupervisedEngine) -> None:
    """With streams under way the worker is killed: each ends with an error or is answered, and work goes on."""
    answers: dict[int, tuple[int, bytes]] = {}
    thread = threading.Thread(
        target=in_threads,
        args=(N_THREADS, list(range(60)), lambda number: answers.__setitem__(number, ask(server, number))),
    )
    thread.start()
    while len(answers) < 3:
        time.sleep(0.01)
    pid = engine.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    thread.join(TIMEOUT_S)
    assert not thread.is_alive()
    deadline = time.monotonic() + TIMEOUT_S
    while engine.status is not EngineStatus.READY:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    wait_for_nothing(engine)

    assert len(answers) == 60
    for status, body in answers.values():
        whole = body.endswith(b"data: [DONE]\n\n")
        assert (status == 200 and (whole or b'"error"' in body)) or status in (500, 503)
    assert ask(server, 1)[0] == 200
