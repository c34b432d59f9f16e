"""Connections: behind a stream they go on, and end where the client wants that or cannot tell where the answer ends."""

import errno
import json
import queue
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPResponse, IncompleteRead
from typing import TYPE_CHECKING

import pytest

from server.app import create_app
from server.config import ServerConfig
from server.net.http import HttpServer
from tests.server.fake_engine import FakeEngine

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

TIMEOUT_S = 20.0
PARTS = (b"one ", b"two ", b"three")
WHOLE = b"".join(PARTS)


def stream(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterator[bytes]:
    """Its body has no length; behind the path `/breaks` it ends in the middle."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    for part in PARTS if environ["REQUEST_METHOD"] != "HEAD" else ():
        yield part
        if environ["PATH_INFO"] == "/breaks":
            raise RuntimeError("it breaks, as it should")


@contextmanager
def connected() -> Iterator[socket.socket]:
    """A connection to a server of streams."""
    with (
        HttpServer(stream, host="127.0.0.1", port=0, max_streams=2, max_body_bytes=100) as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=TIMEOUT_S) as client,
    ):
        yield client


def request(path: str = "/", *headers: str, method: str = "GET", version: str = "1.1") -> bytes:
    return "\r\n".join((f"{method} {path} HTTP/{version}", "Host: x", *headers, "", "")).encode()


def answer(client: socket.socket, method: str = "GET") -> HTTPResponse:
    """The next answer's head; whoever reads it whole leaves the next one in the socket."""
    response = HTTPResponse(client, method=method)
    response.fp = client.makefile("rb", buffering=1)  # takes no more than is asked for
    response.begin()
    return response


def is_over(client: socket.socket) -> bool:
    """Whether the server has ended the connection, with nothing more to say."""
    return client.recv(1) == b""


def test_streams_over_one_connection() -> None:
    """Two streams come over the same connection, which nobody says will be closed."""
    with connected() as client:
        for _ in range(2):
            client.sendall(request())
            response = answer(client)
            assert response.headers["Connection"] is None
            assert response.read() == WHOLE


def test_a_pool_keeps_the_connection() -> None:
    """What a client's library makes of it: the socket is still the same after a stream."""
    with HttpServer(stream, host="127.0.0.1", port=0, max_streams=2, max_body_bytes=100) as server:
        connection = HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT_S)
        connection.request("GET", "/")
        assert connection.getresponse().read() == WHOLE
        kept = connection.sock
        connection.request("GET", "/")
        assert connection.getresponse().read() == WHOLE
        assert kept is not None
        assert connection.sock is kept
        connection.close()


def test_the_next_request_waits_behind_a_stream() -> None:
    """Requests that are sent at once are answered in order, the last one by what it asks for."""
    with connected() as client:
        client.sendall(request() + request() + request("/", "Connection: close"))
        assert [answer(client).read() for _ in range(3)] == [WHOLE] * 3
        assert is_over(client)


@pytest.mark.parametrize("value", ["close", "Close", "TE, close"])
def test_who_wants_an_end_gets_it(value: str) -> None:
    """`Connection: close` closes behind the stream, and the answer says so."""
    with connected() as client:
        client.sendall(request("/", f"Connection: {value}"))
        response = answer(client)
        assert response.headers["Connection"] == "close"
        assert response.read() == WHOLE
        assert is_over(client)


@pytest.mark.parametrize("headers", [(), ("Connection: keep-alive",)])
def test_http_1_0(headers: tuple[str, ...]) -> None:
    """HTTP/1.0 knows no chunks: the end of the connection is that of the stream."""
    with connected() as client:
        client.sendall(request("/", *headers, version="1.0"))
        response = answer(client)
        assert response.headers["Connection"] == "close"
        assert response.headers["Transfer-Encoding"] is None
        assert response.read() == WHOLE
        assert is_over(client)


def test_a_stream_that_breaks_off(caplog: pytest.LogCaptureFixture) -> None:
    """It has no last chunk, its connection ends, and what was sent behind it is not answered."""
    with connected() as client:
        client.sendall(request("/breaks") + request())
        with pytest.raises(IncompleteRead):
            answer(client).read()
        assert is_over(client)
    assert [record.exc_info is not None for record in caplog.records] == [True]


def test_a_stream_behind_one_that_ended_can_break_off(caplog: pytest.LogCaptureFixture) -> None:
    """Each answer decides for itself."""
    with connected() as client:
        client.sendall(request() + request("/breaks"))
        assert answer(client).read() == WHOLE
        with pytest.raises(IncompleteRead):
            answer(client).read()
        assert is_over(client)
    assert [record.name for record in caplog.records if record.name != "waitress.queue"] == ["waitress"]


def test_head() -> None:
    """An answer without a body is closed behind: its last chunk would be the beginning of the next one."""
    with connected() as client:
        client.sendall(request(method="HEAD"))
        response = answer(client, "HEAD")
        assert (response.headers["Connection"], response.read()) == ("close", b"")
        assert b"".join(iter(lambda: client.recv(100), b"")) in (b"", b"0\r\n\r\n")


def test_behind_a_preflight() -> None:
    """A browser that asks by OPTIONS sends its request over the same connection, to an answer without a body."""
    app = create_app(ServerConfig(), FakeEngine())
    with (
        HttpServer(app, host="127.0.0.1", port=0, max_streams=2, max_body_bytes=100) as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=TIMEOUT_S) as client,
    ):
        client.sendall(request("/health", "Origin: http://page", method="OPTIONS") + request("/health"))
        first = answer(client, "OPTIONS")
        assert (first.status, first.headers["Connection"]) == (204, None)
        assert answer(client).read() == b'{"status":"ok"}\n'
        client.sendall(request("/health", method="OPTIONS", version="1.0"))
        assert answer(client, "OPTIONS").headers["Connection"] == "close"
        assert is_over(client)


def test_who_speaks_tls_is_told_at_once() -> None:
    """A handshake, which has no line that HTTP could wait for, ends the connection; what else begins so is not HTTP."""
    with connected() as client:
        client.sendall(bytes.fromhex("16030100a5010000a10303") + bytes(100))
        assert is_over(client)


@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_a_client_that_has_said_all(version: str) -> None:
    """A client that ends its own side gets the answers to all that it has sent, however long they are asked whether
    it is there, and then the end of the connection.
    """
    asked = list[int]()

    def slow(environ: "WSGIEnvironment", start_response: "StartResponse") -> list[bytes]:
        is_gone, deadline = environ["waitress.client_disconnected"], time.monotonic() + 1.2
        asked.append(0)
        while time.monotonic() < deadline:
            assert not is_gone()
            asked[-1] += 1
            time.sleep(0.01)
        start_response("200 OK", [("Content-Length", "2")])
        return [b"ok"]

    with (
        HttpServer(slow, host="127.0.0.1", port=0, max_streams=2, max_body_bytes=100) as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=TIMEOUT_S) as client,
    ):
        client.sendall(request("/", "Connection: keep-alive", version=version) * 2)
        client.shutdown(socket.SHUT_WR)
        for _ in range(2):
            whole = answer(client)
            assert (whole.status, whole.read()) == (200, b"ok")
        assert is_over(client)
    assert len(asked) == 2
    assert all(asked)


@pytest.mark.parametrize("late_s", [0, 0.3])
def test_a_client_that_has_gone(late_s: float) -> None:
    """It ends its side as one that waits does; that nobody has its socket any more shows all the same."""
    found = queue.SimpleQueue[bool]()

    def ask(environ: "WSGIEnvironment", start_response: "StartResponse") -> list[bytes]:
        is_gone, deadline = environ["waitress.client_disconnected"], time.monotonic() + TIMEOUT_S
        while not is_gone() and time.monotonic() < deadline:
            time.sleep(0.01)
        found.put(is_gone())
        start_response("200 OK", [("Content-Length", "2")])
        return [b"ok"]

    with HttpServer(ask, host="127.0.0.1", port=0, max_streams=2, max_body_bytes=100) as server:
        client = socket.create_connection(("127.0.0.1", server.port), timeout=TIMEOUT_S)
        client.sendall(request())
        client.shutdown(socket.SHUT_WR)
        time.sleep(late_s)
        client.close()
        assert found.get(timeout=TIMEOUT_S)


def test_a_client_that_breaks_off_while_it_sends() -> None:
    """A side that ends in the middle of a request ends the connection."""
    with connected() as client:
        client.sendall(request()[:-2])
        client.shutdown(socket.SHUT_WR)
        assert is_over(client)


def test_a_disk_that_is_full(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A body that finds no room in its temporary file is told so, in a line of the log too; it is not a reset."""

    def full(buffer: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("waitress.buffers.TempfileBasedBuffer.newfile", full)
    with HttpServer(stream, host="127.0.0.1", port=0, max_streams=2, max_body_bytes=4 << 20) as server:
        connection = HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT_S)
        connection.request("POST", "/", b"x" * (2 << 20))
        response = connection.getresponse()
        error = json.load(response)["error"]
        connection.close()

    assert (response.status, error["type"]) == (500, "server_error")
    assert "No space left on device" in error["message"]
    assert capsys.readouterr().err.count("No space left on device") == 1
