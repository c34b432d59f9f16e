"""Answers that are not streamed, over real sockets and a worker: its process wakes ours a few times, not each token."""

import http.client
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ggufphys.params import Params
from server.app import create_app
from server.config import ServerConfig
from server.engine.events import Finished, Piece
from server.engine.frames import Gathered, Report, Said, Step
from server.engine.protocol import EngineStatus
from server.engine.readers.readers import Readers
from server.engine.request import GenerationRequest
from server.engine.sampling import Sampling
from server.engine.worker import supervised
from server.engine.worker.supervised import SupervisedEngine
from server.net.http import HttpServer
from tests.server.chain_model import CHAT, ENDING, LOOP

TIMEOUT_S = 60.0

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")


@pytest.fixture(scope="module")
def engine(chain_path: Path) -> Iterator[SupervisedEngine]:
    patch = pytest.MonkeyPatch()
    patch.setattr(supervised, "WORKER", "tests.server.slow_worker")
    engine = SupervisedEngine(chain_path, Params(n_ctx=100_000, n_threads=1, n_seq_max=8, kv_unified=True))
    assert engine.wait_until_settled(TIMEOUT_S) is EngineStatus.READY, engine.error
    yield engine
    engine.close()
    patch.undo()


@pytest.fixture
def server(engine: SupervisedEngine) -> Iterator[HttpServer]:
    app = create_app(ServerConfig(poll_s=0.02), engine)
    with HttpServer(app, host="127.0.0.1", port=0, max_streams=8, max_body_bytes=1 << 16) as server:
        yield server


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[Report]:
    """Tokens as they come to the readers."""
    found: list[Report] = []
    take = Readers.take

    def taken(self: Readers, step: Step) -> None:
        found.extend(report for report in step.reports if isinstance(report, Said | Gathered))
        take(self, step)

    monkeypatch.setattr(Readers, "take", taken)
    return found


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def ask(server: HttpServer, path: str, body: dict[str, Any]) -> tuple[int, Any]:
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT_S)) as connection:
        connection.request("POST", path, json.dumps({"temperature": 0, **body}).encode())
        response = connection.getresponse()
        return response.status, json.loads(response.read())


def counted(n: int) -> str:
    """What the model says behind a 0."""
    return ((LOOP[1:] + LOOP[:1]) * (n // len(LOOP) + 1))[:n]


USER = [{"role": "user", "content": "x"}]


@pytest.mark.parametrize(
    ("path", "body", "text"),
    [
        ("/v1/completions", {"prompt": "!"}, ENDING[1:]),
        ("/v1/completions", {"prompt": "0", "stop": ["56789 ", "89012"]}, "1234567"),
        ("/v1/completions", {"prompt": "!", "stop": ["€😀 w"]}, "Hé"),
        ("/v1/completions", {"prompt": ["0", "!"], "stop": ["23"], "n": 2}, "11" + 2 * ENDING[1:]),
        ("/v1/chat/completions", {"messages": USER}, CHAT[1:]),
        ("/completion", {"prompt": "!"}, ENDING[1:]),
        ("/v1/messages", {"messages": USER, "max_tokens": 99}, CHAT[1:]),
        ("/v1/responses", {"input": "x"}, CHAT[1:]),
    ],
)
def test_endpoints(server: HttpServer, path: str, body: dict[str, Any], text: str) -> None:
    """The text, to its stop string and no further, of all choices."""
    status, found = ask(server, path, body)

    assert status == 200, found
    said = found.get("content", "") if path == "/completion" else ""
    for choice in found.get("choices", ()):
        said += choice.get("text") or choice["message"]["content"]
    for part in found["content"] if path == "/v1/messages" else ():
        said += part["text"]
    for item in found.get("output", ()):
        said += item["content"][0]["text"]
    assert said == text


def test_it_is_told_seldom(server: HttpServer, told: list[Report]) -> None:
    """With the counters and at its end, whatever is shown of its tokens; each gap is counted, and each token shown."""
    n = 400
    status, found = ask(server, "/v1/completions", {"prompt": "0", "max_tokens": n, "logprobs": 0})
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT_S)) as connection:
        connection.request("GET", "/metrics")
        metrics = connection.getresponse().read().decode()

    (choice,) = found["choices"]
    assert (status, choice["text"], found["usage"]["completion_tokens"]) == (200, counted(n), n)
    assert "".join(choice["logprobs"]["tokens"]) == counted(n)
    assert found["timings"]["predicted_n"] == n
    assert all(isinstance(report, Gathered) for report in told)
    assert len(told) < n / 8
    assert f"ggufphys:inter_token_seconds_count {n - 1:.1f}" in metrics
    assert "ggufphys:time_to_first_token_seconds_count 1.0" in metrics


def test_a_client_that_leaves(server: HttpServer, engine: SupervisedEngine) -> None:
    """Its answer, which has no end of its own, ends."""
    body = json.dumps({"prompt": "0", "temperature": 0}).encode()
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        wait_for(lambda: engine.counters.n_active == 1)
    wait_for(lambda: engine.counters.n_active == 0 and engine.n_pending == 0)


def test_a_deadline(engine: SupervisedEngine) -> None:
    """An answer whose time is over has what came until then."""
    prompt, greedy = engine.tokenize("0"), Sampling(temperature=0)
    ends_by_s = time.perf_counter() + 0.6
    generation = engine.submit(GenerationRequest(prompt=prompt, sampling=greedy, whole=True, ends_by_s=ends_by_s))
    text = ""
    while not isinstance(event := generation.next_event(TIMEOUT_S), Finished):
        assert event is not None
        text += event.text if isinstance(event, Piece) else ""

    assert (event.reason, event.usage.n_generated) == ("length", len(text))
    assert text == counted(len(text))
    assert text


def test_a_worker_that_is_killed(server: HttpServer, engine: SupervisedEngine) -> None:
    """Each answer is an error that says so, none a part of a text, and the next ones are answered."""
    found: list[tuple[int, Any]] = []
    threads = [
        threading.Thread(target=lambda: found.append(ask(server, "/v1/completions", {"prompt": "0"}))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    wait_for(lambda: engine.counters.n_active == len(threads))
    pid = engine.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    for thread in threads:
        thread.join(TIMEOUT_S)
    wait_for(lambda: engine.status is EngineStatus.READY and engine.pid != pid)

    assert [status for status, _ in found] == len(threads) * [503]
    assert all("SIGKILL" in body["error"]["message"] for _, body in found)
    assert ask(server, "/v1/completions", {"prompt": "!"})[1]["choices"][0]["text"] == ENDING[1:]
