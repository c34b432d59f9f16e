"""Streams that the worker writes to their clients itself, over real sockets: the same text, and every end there is."""

import http.client
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from ggufphys.params import Params
from server.app import create_app
from server.config import ServerConfig
from server.engine.frames import Wrote
from server.engine.protocol import EngineStatus
from server.engine.readers import readers
from server.engine.readers.readers import Reader
from server.engine.ways import Aside, Offer, Passage
from server.engine.worker import supervised
from server.engine.worker.supervised import SupervisedEngine
from server.net.http import HttpServer
from tests.server.chain_model import CHAT, ENDING, LOOP
from tests.server.fake_engine import sse_data

TIMEOUT_S = 60.0


def hands_sockets_on() -> bool:
    pair = Passage.pair()
    if pair is not None:
        pair[0].close()
        pair[1].close()
    return pair is not None


pytestmark = pytest.mark.skipif(not hands_sockets_on(), reason="sockets cannot be handed on here")


@pytest.fixture(scope="module")
def engine(chain_path: Path) -> Iterator[SupervisedEngine]:
    patch = pytest.MonkeyPatch()
    patch.setattr(supervised, "WORKER", "tests.server.slow_worker")
    patch.setattr(readers, "OFFERS", 1 << 30)  # a busy machine may need more of them
    engine = SupervisedEngine(chain_path, Params(n_ctx=100_000, n_threads=1, n_seq_max=8, kv_unified=True))
    assert engine.wait_until_settled(TIMEOUT_S) is EngineStatus.READY, engine.error
    yield engine
    engine.close()
    patch.undo()


@pytest.fixture(scope="module")
def server(engine: SupervisedEngine) -> Iterator[HttpServer]:
    app = create_app(ServerConfig(poll_s=0.02), engine)
    with HttpServer(app, host="127.0.0.1", port=0, max_streams=8, max_body_bytes=1 << 16) as server:
        server._servers[0].socket.setsockopt(
            socket.SOL_SOCKET, socket.SO_SNDBUF, 4096
        )  # connections have their listener's
        yield server


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[Wrote]:
    """What the worker tells that it wrote."""
    found: list[Wrote] = []
    whole = Reader.wrote

    def wrote(self: Reader, report: Wrote) -> None:
        found.append(report)
        whole(self, report)

    monkeypatch.setattr(Reader, "wrote", wrote)
    return found


def n_written(found: list[Wrote]) -> int:
    return sum(report.n_tokens for report in found)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@contextmanager
def opened(
    server: HttpServer, path: str, body: dict[str, Any], *, version: int = 11
) -> Iterator[http.client.HTTPResponse]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT_S)
    connection._http_vsn, connection._http_vsn_str = version, f"HTTP/1.{version % 10}"  # type: ignore[attr-defined]
    connection.connect()
    connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.request("POST", path, json.dumps({**body, "stream": True, "temperature": 0}).encode())
    with closing(connection), closing(connection.getresponse()) as response:
        yield response


def ask(server: HttpServer, path: str, body: dict[str, Any], *, version: int = 11) -> bytes:
    with opened(server, path, body, version=version) as response:
        return response.read()


def said(body: bytes) -> str:
    """The text of a completion's stream."""
    return "".join(c["text"] for e in sse_data(body) if isinstance(e, dict) for c in e.get("choices", ()))


def counted(n: int) -> str:
    """What the model says behind a 0."""
    return (LOOP[1:] + LOOP[:1]) * (n // len(LOOP) + 1)


@pytest.mark.parametrize("version", [10, 11])
def test_text(server: HttpServer, written: list[Wrote], version: int) -> None:
    """All of it, the last chunk with its count, and the connection's end or the last chunk's."""
    body = ask(server, "/v1/completions", {"prompt": "0", "max_tokens": 300}, version=version)
    *_, last, done = sse_data(body)

    assert said(body) == counted(300)[:300]
    assert (last["timings"]["predicted_n"], last["choices"][0]["finish_reason"], done) == (300, "length", "[DONE]")
    assert n_written(written) > 100


def test_a_connection_that_is_used_again(server: HttpServer, written: list[Wrote]) -> None:
    """However a stream ended: nothing of it comes into the next one."""
    endings: list[tuple[dict[str, Any], str]] = [
        ({"prompt": "0", "max_tokens": 60}, counted(60)[:60]),
        ({"prompt": "4", "stop": "901234567"}, "5678"),
        ({"prompt": "!"}, ENDING[1:]),
        ({"prompt": "0", "stop": ["x"], "max_tokens": 30}, counted(30)[:30]),
    ]
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT_S)
    with closing(connection):
        connection.connect()
        kept = connection.sock
        for body, text in 3 * endings:
            asked = json.dumps({**body, "stream": True, "temperature": 0}).encode()
            connection.request("POST", "/v1/completions", asked)
            assert said(connection.getresponse().read()) == text
            assert connection.sock is kept
    assert n_written(written)


@pytest.mark.parametrize(
    ("path", "body", "text"),
    [
        ("/v1/completions", {"prompt": "!"}, ENDING[1:]),
        ("/v1/completions", {"prompt": "0", "stop": ["56789 ", "89012"]}, "1234567"),
        ("/v1/completions", {"prompt": "!", "stop": ["€😀 w"]}, "Hé"),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]}, CHAT[1:]),
        ("/completion", {"prompt": "!"}, ENDING[1:]),
        ("/v1/messages", {"messages": [{"role": "user", "content": "x"}], "max_tokens": 99}, CHAT[1:]),
    ],
)
def test_endpoints(server: HttpServer, path: str, body: dict[str, Any], text: str) -> None:
    """Characters and stop strings of several tokens: the same text whoever writes."""
    lines = ask(server, path, body).splitlines()  # Anthropic's events have names
    events = [json.loads(line[6:]) for line in lines if line.startswith(b"data: {")]
    found = ""
    for event in events:
        for choice in event.get("choices", ()):
            found += choice.get("text") or choice.get("delta", {}).get("content") or ""
        found += event.get("content", "") if path == "/completion" else ""
        found += event.get("delta", {}).get("text", "")

    assert found == text


def scrubbed(value: Any) -> Any:
    """Without what differs from one answer to the next."""
    if isinstance(value, dict):
        own = ("id", "item_id", "created", "created_at", "completed_at", "timings")
        return {name: scrubbed(each) for name, each in value.items() if name not in own}
    return [scrubbed(each) for each in value] if isinstance(value, list) else value


def events_of(body: bytes) -> list[Any]:
    return [scrubbed(json.loads(line[6:])) for line in body.splitlines() if line.startswith(b"data: {")]


USER = [{"role": "user", "content": "0"}]


@pytest.mark.parametrize(
    ("path", "body", "stop"),
    [
        ("/v1/completions", {"prompt": "0", "max_tokens": 60}, "stop"),
        ("/completion", {"prompt": "0", "n_predict": 60, "return_tokens": True}, "stop"),
        ("/v1/chat/completions", {"messages": USER, "max_tokens": 60}, "stop"),
        ("/v1/messages", {"messages": USER, "max_tokens": 60}, "stop_sequences"),
        ("/v1/responses", {"input": "0", "max_output_tokens": 60}, "stop"),
    ],
)
def test_events_are_the_same(
    engine: SupervisedEngine, written: list[Wrote], path: str, body: dict[str, Any], stop: str
) -> None:
    """Whoever writes them: numbers and tokens that they count, what the last ones say of all, and ends by a string."""
    hand_on, found = engine._readers.hand_on, []
    config = ServerConfig(poll_s=0.02, chat_template="{{ messages[-1].content }}")
    with HttpServer(create_app(config, engine), host="127.0.0.1", port=0, max_streams=8, max_body_bytes=4096) as server:
        for more in ({}, {stop: ["x", "34567890" + "1234567890" * 2 + "12345"]}):
            ask(server, path, body)  # what is asked again is in memory
            written.clear()
            handed: list[Offer | Aside] = []

            def handing(message: Offer | Aside, fileno: int, handed: list[Offer | Aside] = handed) -> bool:
                handed.append(message)
                return hand_on is not None and hand_on(message, fileno)

            for way in (handing, None):
                engine._readers.hand_on = way
                try:
                    found.append(events_of(ask(server, path, {**body, **more})))
                finally:
                    engine._readers.hand_on = hand_on
            assert handed
            assert n_written(written) > 20
            assert found[-2] == found[-1]
    assert "".join(map(json.dumps, found[0])) != "".join(map(json.dumps, found[2]))


def test_a_client_that_reads_nothing_for_a_while(server: HttpServer, written: list[Wrote]) -> None:
    """What it doesn't take goes back to the HTTP side, and comes to it once, in order."""
    n = 600
    with opened(server, "/v1/completions", {"prompt": "0", "max_tokens": n}) as response:
        wait_for(lambda: any(report.unsent for report in written))
        body = response.read()

    assert said(body) == counted(n)[:n]
    assert sum(report.rest is not None for report in written) == 1


def test_a_client_that_leaves(server: HttpServer, engine: SupervisedEngine, written: list[Wrote]) -> None:
    """Its answer ends, and neither process keeps its socket."""
    folder = Path(f"/proc/{engine.pid}/fd")
    n_before = len(list(folder.iterdir())) if folder.exists() else 0
    for _ in range(3):
        with opened(server, "/v1/completions", {"prompt": "0"}) as response:
            response.read(2000)
    wait_for(lambda: engine.counters.n_active == 0 and engine.n_pending == 0)

    if folder.exists():
        wait_for(lambda: len(list(folder.iterdir())) == n_before)
    assert n_written(written)
    wait_for(lambda: not server._servers[0].active_channels)


def test_silence(engine: SupervisedEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Comments that keep a stream open come between whole events, though somebody else writes these."""
    app = create_app(ServerConfig(poll_s=0.001, ping_s=0.001), engine)
    with HttpServer(app, host="127.0.0.1", port=0, max_streams=8, max_body_bytes=1 << 16) as server:
        body = ask(server, "/v1/completions", {"prompt": "0", "max_tokens": 400})

    assert said(body) == counted(400)[:400]
    assert b": ping\n\n" in body


def test_a_worker_that_is_killed(server: HttpServer, engine: SupervisedEngine) -> None:
    """Each stream ends behind a whole event with an error, in whole chunks, and the next ones are answered."""
    bodies: list[bytes] = []

    def read() -> None:
        with suppress(http.client.IncompleteRead):
            bodies.append(ask(server, "/v1/completions", {"prompt": "0"}))

    threads = [threading.Thread(target=read) for _ in range(6)]
    for thread in threads:
        thread.start()
    wait_for(lambda: engine.counters.n_active == len(threads))
    time.sleep(0.3)
    pid = engine.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    for thread in threads:
        thread.join(TIMEOUT_S)
    wait_for(lambda: engine.status is EngineStatus.READY and engine.pid != pid)

    assert len(bodies) == len(threads)
    for body in bodies:
        assert "SIGKILL" in sse_data(body)[-1]["error"]["message"]
        text = said(body)
        assert text == counted(len(text))[: len(text)]
    assert said(ask(server, "/v1/completions", {"prompt": "!"})) == ENDING[1:]
