"""Streams that the engine's thread writes itself: every event once, in order, whoever writes it and however it ends."""

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from server.accounts.metrics import GAPS
from server.api import replies
from server.app import create_app
from server.config import ServerConfig
from server.engine.events import Event, Failed, Finished, Piece, Started
from server.engine.generation import Generation
from server.engine.request import GenerationRequest
from server.net.http import HttpServer
from tests.server.fake_engine import FakeEngine, finished, sse_data

TIMEOUT_S = 20.0
N_PIECES = 60


class Slow(FakeEngine):
    """Publishes from a thread of its own, as a worker's reader does."""

    def submit(self, request: GenerationRequest) -> Generation:
        generation = Generation(request)
        self.generations.append(generation)

        def publish() -> None:
            for event in self.events:
                time.sleep(0.001)
                if isinstance(event, Piece | Finished):
                    for index in range(request.n):
                        generation.publish(replace(event, index=index))
                else:
                    generation.publish(event)

        threading.Thread(target=publish, daemon=True).start()
        return generation


PIECES: tuple[Event, ...] = tuple(Piece(text=f"{i} ") for i in range(N_PIECES))


def serve(engine: FakeEngine) -> HttpServer:
    app = create_app(ServerConfig(poll_s=0.02), engine)
    return HttpServer(app, host="127.0.0.1", port=0, max_streams=4, max_body_bytes=4096)


def ask(server: HttpServer, version: int = 11, **fields: object) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT_S)
    connection._http_vsn, connection._http_vsn_str = version, f"HTTP/1.{version % 10}"  # type: ignore[attr-defined]
    connection.request("POST", "/v1/completions", json.dumps({"prompt": "x", **fields}).encode())
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response.status, body


@pytest.mark.parametrize("pushed_bytes", [0, 1, 3000, 1 << 20])
@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("version", [10, 11])
def test_every_piece_once(monkeypatch: pytest.MonkeyPatch, pushed_bytes: int, n: int, version: int) -> None:
    """Pushed to the end, to some byte or not at all, a stream has every piece of every answer once, and its end."""
    monkeypatch.setattr(replies, "PUSHED_BYTES", pushed_bytes)
    with serve(Slow((Started(), *PIECES, finished(n_generated=N_PIECES)))) as server:
        status, body = ask(server, version, stream=True, n=n)
    *events, done = sse_data(body)
    assert (status, done) == (200, "[DONE]")
    for index in range(n):
        texts = [choice["text"] for event in events for choice in event["choices"] if choice["index"] == index]
        assert "".join(texts) == "".join(f"{i} " for i in range(N_PIECES))


class Dying(FakeEngine):
    """Ends with an error; `writes`: while it may have been writing there itself."""

    writes = False

    def submit(self, request: GenerationRequest) -> Generation:
        generation = super().submit(request)
        generation.send = (lambda data: None) if self.writes else None
        return generation


@pytest.mark.parametrize("writes", [False, True])
def test_a_connection_ends_where_a_chunk_may_have_been_cut(writes: bool) -> None:
    """Behind an error of an engine that wrote to the client itself no other answer comes, else the next one does."""
    engine = Dying((Started(), *PIECES, Failed(message="SIGKILL", fault="worker")))
    engine.writes = writes
    with serve(engine) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT_S)
        connection.request("POST", "/v1/completions", json.dumps({"prompt": "x", "stream": True}).encode())
        assert sse_data(connection.getresponse().read())[-1]["error"]["message"]
        assert connection.sock is not None
        if writes:
            assert connection.sock.recv(1) == b""
        else:
            kept = connection.sock
            connection.request("GET", "/health")
            assert connection.getresponse().status == 200
            assert connection.sock is kept
        connection.close()


HARD = ('"', "\\", "\n", "\0", "é", "\u2028", "🙂", "</s>", "\0text\0", "text")


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/v1/completions", {"prompt": "x"}, "text"),
        ("/v1/completions", {"prompt": "x", "stream_options": {"include_usage": True}}, "text"),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]}, "content"),
    ],
)
def test_every_chunk_alike(path: str, body: dict[str, object], field: str) -> None:
    """Chunks that only say a text are the same but for it, and each text is what the engine said."""
    with serve(Slow((Started(), *(Piece(text=text) for text in ("a", *HARD)), finished()))) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT_S)
        connection.request("POST", path, json.dumps({**body, "stream": True}).encode())
        events = sse_data(connection.getresponse().read())[1 : 1 + len(HARD)]  # a first one may open the answer
        connection.close()
    texts = []
    for event in events:
        (choice,) = event["choices"]
        texts.append((choice.get("delta", choice)).pop(field))
    assert texts == list(HARD)
    assert all(event == events[0] for event in events)


def test_who_reads_late_gets_all_of_it() -> None:
    """What a socket does not take at once is sent later, in order, once."""
    parts = [bytes([i]) * (1 << 16) for i in range(64)]

    def app(environ: dict[str, object], start_response: Callable[..., Callable[[bytes], object]]) -> list[bytes]:
        write = start_response("200 OK", [("Content-Type", "text/plain")])
        for part in parts:
            write(part)
        return []

    with HttpServer(app, host="127.0.0.1", port=0, max_streams=4, max_body_bytes=4096) as server:
        connection = socket.create_connection(("127.0.0.1", server.port), timeout=TIMEOUT_S)
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        time.sleep(0.2)
        received = b"".join(iter(lambda: connection.recv(1 << 16), b""))
        connection.close()
    assert received.partition(b"\r\n\r\n")[2] == b"".join(parts)


def test_a_whole_answer_is_kept_without_waking() -> None:
    """An answer that is not streamed has the same text."""
    with serve(Slow((Started(), *PIECES, finished()))) as server:
        status, body = ask(server)
    assert status == 200
    assert json.loads(body)["choices"][0]["text"] == "".join(f"{i} " for i in range(N_PIECES))


def test_an_engine_that_fails_in_the_middle() -> None:
    """A failure is an event of the stream, or the status of a whole answer."""
    with serve(Slow((Started(), *PIECES[:3], Failed(message="it broke", fault="worker")))) as server:
        _, body = ask(server, stream=True)
        assert sse_data(body)[-1]["error"]["message"] == "it broke"
        status, _ = ask(server)
        assert status == 503


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("last", [Failed(message="it broke", fault="worker"), finished()])
def test_every_gap_is_counted(stream: bool, last: Event) -> None:
    """The histogram of times between two pieces has all of an answer's, also of one that breaks off."""
    n = GAPS + 9
    with serve(Slow((Started(), *(Piece(text="a") for _ in range(n)), last))) as server:
        ask(server, stream=stream)
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT_S)
        connection.request("GET", "/metrics")
        metrics = connection.getresponse().read().decode()
        connection.close()
    assert f"ggufphys:inter_token_seconds_count {n - 1:.1f}" in metrics


def test_who_has_gone_is_cancelled() -> None:
    """A client that goes away in the middle has its generation cancelled, and the engine's thread goes on."""
    engine = Slow((Started(), *(Piece(text="a" * 100) for _ in range(3000))))
    with serve(engine) as server:
        body = json.dumps({"prompt": "x", "stream": True}).encode()
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
            connection.sendall(head % len(body) + body)
            assert connection.recv(100)
        deadline = time.monotonic() + TIMEOUT_S
        while not engine.generations[0].cancelled and time.monotonic() < deadline:
            time.sleep(0.01)
        assert engine.generations[0].cancelled
        engine.events = (Started(), *PIECES, finished())
        assert ask(server)[0] == 200


def test_a_sink_gets_events_in_order_and_gives_them_back() -> None:
    """Events that wait come first; from when a sink takes no more, they are for the reader again."""
    generation = Generation(GenerationRequest(prompt=(1,)))
    seen: list[Event] = []
    first, second, third = PIECES[:3]
    generation.publish(first)

    def sink(event: Event) -> bool:
        seen.append(event)
        return len(seen) < 2

    generation.attach(sink)
    generation.publish(second)
    generation.publish(third)
    assert seen == [first, second]
    assert generation.next_event(0) == third
