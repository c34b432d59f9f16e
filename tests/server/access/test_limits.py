"""What one client may ask for, how much a body may hold, how many connections may be open."""

import http.client
import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from server.access.limits import Limits, TooManyError
from server.app import create_app, service_of
from server.config import ServerConfig
from server.engine.events import Piece, Started
from server.net.http import HttpServer, connection_limit
from tests.server.fake_engine import ANSWER, FakeEngine

MIB = 1 << 20
TIMEOUT_S = 20.0
BODY = {"prompt": "a", "max_tokens": 2}


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_rate() -> None:
    """A client has its requests a minute, then waits for the next as long as it is told; others are not concerned."""
    clock = Clock()
    limits = Limits(per_minute=3, clock=clock)
    for _ in range(3):
        limits.take("a")
    with pytest.raises(TooManyError) as refused:
        limits.take("a")
    limits.take("b")

    assert refused.value.retry_after_s == pytest.approx(20)
    clock.now += refused.value.retry_after_s
    limits.take("a")
    with pytest.raises(TooManyError):
        limits.take("a")


def test_concurrency() -> None:
    """A client has so many requests at a time; one that is over, however often that is said, makes room for one."""
    limits = Limits(at_once=2)
    done = limits.take("a")
    limits.take("a")
    with pytest.raises(TooManyError):
        limits.take("a")
    done()
    done()
    limits.take("a")
    with pytest.raises(TooManyError):
        limits.take("a")


def test_limits_over_http() -> None:
    """By key: 429 with Retry-After in OpenAI's shape, counted in the metrics; a stream counts until it is closed."""
    engine = FakeEngine()
    app = create_app(ServerConfig(api_keys=("one", "two"), requests_at_once=1, poll_s=0.01), engine)
    client = app.test_client()

    engine.events = (Started(), Piece(text="a"))
    stream = client.post("/v1/completions", json=BODY | {"stream": True}, headers={"X-Api-Key": "one"})
    assert next(iter(stream.response))
    engine.events = ANSWER
    refused = client.post("/v1/completions", json=BODY, headers={"X-Api-Key": "one"})
    assert refused.status_code == 429
    assert refused.json is not None
    assert refused.json["error"]["code"] == "rate_limit_exceeded"
    assert int(refused.headers["Retry-After"]) >= 1
    assert client.post("/v1/completions", json=BODY, headers={"X-Api-Key": "two"}).status_code == 200
    assert client.get("/v1/models", headers={"X-Api-Key": "one"}).status_code == 200
    stream.close()
    assert client.post("/v1/completions", json=BODY, headers={"X-Api-Key": "one"}).status_code == 200
    assert b'reason="client concurrency"} 1.0' in service_of(app).metrics.text()


def test_keys_can_be_replaced() -> None:
    """What SIGHUP does: from then on the new keys open the server and the old ones do not."""
    app = create_app(ServerConfig(api_keys=("old",)), FakeEngine())
    client = app.test_client()
    service_of(app).keys.replace(("new",))

    assert client.get("/v1/models", headers={"X-Api-Key": "old"}).status_code == 401
    assert client.get("/v1/models", headers={"X-Api-Key": "new"}).status_code == 200


def test_field_defaults() -> None:
    """A request without a field, or with null, has the server's default; one with it, its own."""
    engine = FakeEngine()
    client = create_app(ServerConfig(field_defaults={"temperature": 0.0, "n_predict": 7}), engine).test_client()
    for more in ({}, {"temperature": None}, {"temperature": 0.5, "max_tokens": 3}):
        client.post("/v1/completions", json={"prompt": "a"} | more)

    assert [r.sampling.temperature for r in engine.requests] == [0, 0, 0.5]
    assert [r.max_tokens for r in engine.requests] == [7, 7, 3]


def test_prefix_and_template() -> None:
    """Every path begins with the prefix; a template that was asked for takes the file's place."""
    config = ServerConfig(api_prefix="/llm", chat_template="<{{ messages[0].content }}>")
    client = create_app(config, FakeEngine()).test_client()
    body = {"messages": [{"role": "user", "content": "hi"}]}

    assert client.get("/llm/health").status_code == 200
    assert client.get("/health").status_code == 404
    answer = client.post("/llm/apply-template", json=body)
    assert answer.json == {"prompt": "<hi>"}


@pytest.fixture(scope="module")
def server() -> Iterator[HttpServer]:
    config = ServerConfig(poll_s=0.01)
    app = create_app(config, FakeEngine())
    with HttpServer(app, host="127.0.0.1", port=0, max_streams=8, max_body_bytes=config.max_body_bytes) as server:
        yield server


def answer_to(server: HttpServer, head: str, nbytes: int, chunk: bytes = b"x" * MIB) -> tuple[int, dict[str, object]]:
    """Status and document of a request whose whole body is sent before anything is read."""
    with socket.create_connection(("127.0.0.1", server.port), TIMEOUT_S) as connection:
        connection.sendall(f"POST /v1/completions HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n".encode())
        for _ in range(nbytes // len(chunk)):
            connection.sendall(chunk)
        response = http.client.HTTPResponse(connection)
        response.begin()
        return response.status, json.loads(response.read())


@pytest.mark.parametrize("nbytes", [17 * MIB, 40 * MIB])
def test_large_body_is_refused_unread(server: HttpServer, nbytes: int) -> None:
    """40 MB are 413 in OpenAI's shape, not a reset, and nothing of them stays in memory."""
    process = psutil.Process()
    answer_to(server, f"Content-Length: {nbytes}", nbytes)
    before = process.memory_info().rss
    for _ in range(3):
        status, document = answer_to(server, f"Content-Length: {nbytes}", nbytes)
    grown = process.memory_info().rss - before

    assert status == 413
    error = document["error"]
    assert isinstance(error, dict)
    assert error["code"] == "request_too_large"
    assert grown < 4 * MIB


def test_who_asks_before_he_sends_is_refused_at_once(server: HttpServer) -> None:
    """As curl does with a long body; within the limit he is told to go on."""
    status, document = answer_to(server, f"Expect: 100-continue\r\nContent-Length: {17 * MIB}", 0)
    with socket.create_connection(("127.0.0.1", server.port), TIMEOUT_S) as connection:
        connection.sendall(b"POST /tokenize HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        told = connection.recv(100)
        connection.sendall(b"{}")
        response = http.client.HTTPResponse(connection)
        response.begin()

    assert (status, document["error"]["code"]) == (413, "request_too_large")  # type: ignore[index]
    assert told == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert response.status == 200


def test_endless_chunks_are_refused(server: HttpServer) -> None:
    """A body without a length is refused as soon as it is too long."""
    chunk = f"{MIB:x}\r\n".encode() + b"x" * MIB + b"\r\n"
    status, document = answer_to(server, "Transfer-Encoding: chunked", 20 * len(chunk), chunk)

    assert status == 413
    assert "error" in document


def test_malformed_requests_have_our_shape(server: HttpServer) -> None:
    """What is no HTTP is told so in the shape of every other error, and the connection is closed."""
    with socket.create_connection(("127.0.0.1", server.port), TIMEOUT_S) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nContent-Length: many\r\n\r\n")
        response = http.client.HTTPResponse(connection)
        response.begin()

        assert response.status == 400
        assert json.loads(response.read())["error"]["type"] == "invalid_request_error"
        assert connection.recv(1) == b""


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts descriptors as Linux has them")
def test_idle_connections(server: HttpServer) -> None:
    """With 1,300 idle connections /health still answers within 250 ms."""
    if connection_limit() < 2 * 1400:  # both ends are ours
        pytest.skip("this process may not have so many files open")
    with ExitStack() as stack:
        for _ in range(1300):
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port), TIMEOUT_S))
        took = []
        for _ in range(5):
            began = time.perf_counter()
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT_S)
            connection.request("GET", "/health")
            assert connection.getresponse().status == 200
            connection.close()
            took.append(time.perf_counter() - began)

    assert sorted(took)[2] < 0.25, took
