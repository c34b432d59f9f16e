"""Over a real socket: the openai package as its users have it, clients that go away, and the end of the server."""

import http.client
import json
import re
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import openai
import pytest

from server.app import create_app
from server.config import ServerConfig
from server.engine.errors import ContextLengthError, EngineError, QueueFullError
from server.engine.events import Piece, Started
from server.engine.loop.threaded import BaseEngine
from server.engine.protocol import Engine
from server.net.http import HttpServer
from tests.server.chain_model import CHAT, ENDING
from tests.server.fake_engine import FakeEngine, finished, sse_data

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

TIMEOUT_S = 20.0


def serve(engine: Engine, *, poll_s: float = 0.01, api_keys: tuple[str, ...] = ()) -> HttpServer:
    app = create_app(ServerConfig(poll_s=poll_s, api_keys=api_keys, max_body_bytes=4096), engine)
    return HttpServer(app, host="127.0.0.1", port=0, max_streams=4, max_body_bytes=4096)


def client_of(server: HttpServer, api_key: str = "none") -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key=api_key, max_retries=0, timeout=TIMEOUT_S)


@pytest.fixture(scope="module")
def client(chain_engine: BaseEngine) -> Iterator[openai.OpenAI]:
    with serve(chain_engine) as server, client_of(server) as client:
        yield client


@pytest.fixture
def failing() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def failing_client(failing: FakeEngine) -> Iterator[openai.OpenAI]:
    with serve(failing, api_keys=("right",)) as server, client_of(server, "right") as client:
        yield client


def test_openai_models(client: openai.OpenAI) -> None:
    """models.list and models.retrieve find the model."""
    (model,) = client.models.list().data

    assert model.id == "chain"
    assert client.models.retrieve("chain").id == "chain"


def test_openai_completion(client: openai.OpenAI) -> None:
    """completions.create gives text, reason and usage, whatever model is named."""
    completion = client.completions.create(model="gpt-whatever", prompt="Hi!", temperature=0, max_tokens=50)

    assert completion.choices[0].text == ENDING[1:]
    assert completion.choices[0].finish_reason == "stop"
    assert completion.model == "chain"
    assert completion.usage is not None
    assert completion.usage.completion_tokens == len(ENDING[1:].encode()) + 1


def test_openai_completion_stream(client: openai.OpenAI) -> None:
    """A streamed completion is the same text in pieces, and stops at a stop string."""
    with client.completions.create(model="x", prompt="!", temperature=0, stream=True, stop=["wo"]) as stream:
        chunks = list(stream)

    assert [chunk.choices[0].text for chunk in chunks] == ["H", "é", "€", "😀", " ", ""]
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_openai_chat(client: openai.OpenAI) -> None:
    """chat.completions.create answers as the assistant."""
    completion = client.chat.completions.create(
        model="x", messages=[{"role": "user", "content": "hi"}], temperature=0, max_completion_tokens=50
    )

    assert completion.choices[0].message.content == CHAT[1:]
    assert completion.choices[0].message.role == "assistant"


def test_openai_chat_stream(client: openai.OpenAI) -> None:
    """A streamed chat has the role once, the text in pieces, and usage at the end when asked for."""
    with client.chat.completions.create(
        model="x",
        messages=[{"role": "user", "content": "hi"}],
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    ) as stream:
        chunks = list(stream)
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]

    assert [delta.role for delta in deltas if delta.role] == ["assistant"]
    assert "".join(delta.content or "" for delta in deltas) == CHAT[1:]
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == len(CHAT)


def test_openai_stream_helper(client: openai.OpenAI) -> None:
    """The package's own accumulating stream helper understands the chunks."""
    with client.chat.completions.stream(
        model="x", messages=[{"role": "user", "content": "hi"}], temperature=0
    ) as stream:
        final = stream.get_final_completion()

    assert final.choices[0].message.content == CHAT[1:]
    assert final.choices[0].finish_reason == "stop"


def test_openai_too_long(client: openai.OpenAI) -> None:
    """A prompt that cannot fit is the package's BadRequestError with OpenAI's code."""
    with pytest.raises(openai.BadRequestError) as refused:
        client.completions.create(model="x", prompt="x" * 1000)

    assert refused.value.code == "context_length_exceeded"
    assert refused.value.param == "prompt"


@pytest.mark.parametrize(
    ("refusal", "expected"),
    [
        (QueueFullError("full", retry_after_s=1), openai.RateLimitError),
        (ContextLengthError(n_prompt=3, n_ctx_seq=2), openai.BadRequestError),
        (EngineError("broken"), openai.InternalServerError),
    ],
)
def test_openai_exceptions(
    failing: FakeEngine, failing_client: openai.OpenAI, refusal: Exception, expected: type[openai.APIStatusError]
) -> None:
    """The engine's refusals arrive as the package's own exceptions, with their message."""
    failing.refusal = refusal
    with pytest.raises(expected, match=re.escape(str(refusal).split(":")[0])):
        failing_client.completions.create(model="x", prompt="a")


def test_openai_request_errors(failing_client: openai.OpenAI) -> None:
    """A wrong key, an unknown model, a wrong field and an endpoint there is not are each their own exception."""
    with pytest.raises(openai.AuthenticationError):
        failing_client.with_options(api_key="wrong").models.list()
    with pytest.raises(openai.NotFoundError):
        failing_client.models.retrieve("other")
    with pytest.raises(openai.NotFoundError):
        failing_client.moderations.create(model="x", input="a")
    with pytest.raises(openai.BadRequestError) as refused:
        failing_client.completions.create(model="x", prompt="a", suffix="b")
    assert refused.value.param == "suffix"


def test_openai_retries_when_told() -> None:
    """A full queue is tried again by the package, and answered when there is room."""
    engine = FakeEngine(refusal=QueueFullError("full", retry_after_s=0.1))
    original, calls = engine.submit, []

    def submit(request: object) -> object:
        calls.append(request)
        if len(calls) == 2:
            engine.refusal = None
        return original(request)  # type: ignore[arg-type]

    engine.submit = submit  # type: ignore[method-assign, assignment]
    with serve(engine) as server, client_of(server) as client:
        text = client.with_options(max_retries=1).completions.create(model="x", prompt="a").choices[0].text

    assert text == "Hello wörld"
    assert len(calls) == 2


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def post(port: int, body: dict[str, object]) -> socket.socket:
    """Send a completion request and leave the connection open."""
    data = json.dumps(body).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n\r\n"
    connection = socket.create_connection(("127.0.0.1", port), TIMEOUT_S)
    connection.sendall(head.encode() + data)
    return connection


@pytest.mark.parametrize("stream", [True, False])
def test_silent_client_goes_away(stream: bool) -> None:
    """A client that leaves while nothing is sent to it, in the middle or before the start, ends its generation."""
    engine = FakeEngine([Started(), Piece(text="a")] if stream else [Started()])
    with serve(engine) as server:
        connection = post(server.port, {"prompt": "a", "stream": stream})
        wait_for(lambda: len(engine.generations) == 1)
        if stream:
            assert connection.recv(4096)
        assert not engine.generations[0].cancelled
        connection.close()

        wait_for(lambda: engine.generations[0].cancelled)


@pytest.mark.parametrize("stream", [True, False])
def test_who_has_said_all_gets_the_answer(stream: bool) -> None:
    """A client that ends its own side is answered, however long that takes, whole or as a stream."""
    engine = FakeEngine([Started()])
    with serve(engine) as server, post(server.port, {"prompt": "a", "stream": stream}) as connection:
        connection.shutdown(socket.SHUT_WR)
        wait_for(lambda: len(engine.generations) == 1)
        time.sleep(1.2)  # it is asked twice whether it is there
        for event in (Piece(text="a"), finished()):
            engine.generations[0].publish(event)
        response = http.client.HTTPResponse(connection)
        response.begin()
        body = response.read()
        response.close()
        is_over = connection.recv(1) == b""
    document = sse_data(body)[0] if stream else json.loads(body)
    assert (response.status, document["choices"][0]["text"], is_over) == (200, "a", True)


@pytest.mark.parametrize("stream", [True, False])
def test_disconnect_frees_the_engine(endless_engine: BaseEngine, stream: bool) -> None:
    """With one endless generation running, the next request is answered once its client has gone."""
    with serve(endless_engine) as server, client_of(server) as client:
        gone = post(server.port, {"prompt": "0", "stream": stream, "temperature": 0})
        if stream:
            gone.recv(100)
        gone.close()
        completion = client.completions.create(model="x", prompt="!", temperature=0)

    assert completion.choices[0].text == ENDING[1:]


@pytest.mark.parametrize("stream", [True, False])
def test_disconnect_in_the_queue(endless_engine: BaseEngine, stream: bool) -> None:
    """A client that leaves while its request waits ends it there: what runs goes on, and the place is free."""
    before = endless_engine.counters.finished["cancelled"]
    with serve(endless_engine) as server:
        running = post(server.port, {"prompt": "0", "stream": True, "temperature": 0})
        assert running.recv(100)
        gone = post(server.port, {"prompt": "1", "stream": stream, "temperature": 0})
        wait_for(lambda: endless_engine.n_pending == 2)
        gone.close()

        wait_for(lambda: endless_engine.n_pending == 1)
        wait_for(lambda: endless_engine.counters.finished["cancelled"] == before + 1)
        assert running.recv(100)
        running.close()
        wait_for(lambda: endless_engine.n_pending == 0)


def test_a_deadline_in_the_queue(endless_engine: BaseEngine) -> None:
    """A request whose time passes while another runs is answered 429 then, and not when the other is over."""
    with serve(endless_engine) as server:
        running = post(server.port, {"prompt": "0", "stream": True, "temperature": 0})
        assert running.recv(100)
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT_S)
        began = time.perf_counter()
        connection.request("POST", "/v1/completions", json.dumps({"prompt": "1"}), {"X-Deadline-Ms": "300"})
        response = connection.getresponse()
        took_s = time.perf_counter() - began
        error = json.loads(response.read())["error"]
        connection.close()
        running.close()

    assert (response.status, error["code"], response.headers["Retry-After"]) == (429, "deadline", "1")
    assert "waited for its turn" in error["message"]
    assert 0.3 <= took_s < 5


def test_keep_alive() -> None:
    """Several requests, streams and errors among them, go over one connection."""
    with serve(FakeEngine()) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT_S)
        statuses = []
        for body in ({"prompt": "a"}, {"prompt": "a", "stream": True}, {"prompt": 1}, {"prompt": "a"}):
            connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
            response = connection.getresponse()
            response.read()
            statuses.append(response.status)
        connection.close()

    assert statuses == [200, 200, 400, 200]


def test_complete_answers_are_sent() -> None:
    """What the application has answered reaches a slow client before the server ends."""
    body = b"x" * (32 << 20)  # more than sockets hold

    def app(environ: "WSGIEnvironment", start_response: "StartResponse") -> list[bytes]:
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]

    def read(response: http.client.HTTPResponse) -> int:
        time.sleep(0.2)
        return len(response.read())

    with ThreadPoolExecutor(1) as pool:
        with HttpServer(app, host="127.0.0.1", port=0, max_streams=1, max_body_bytes=1) as server:
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT_S)
            connection.request("GET", "/")
            n_read = pool.submit(read, connection.getresponse())
            server.flush()
        assert n_read.result() == len(body)
        connection.close()


def test_an_answer_that_ends_while_the_server_stops(caplog: pytest.LogCaptureFixture) -> None:
    """A thread that comes to its end while all is closed can still wake the server's: no traceback in the log."""
    ending = threading.Event()

    def app(environ: "WSGIEnvironment", start_response: "StartResponse") -> list[bytes]:
        start_response("200 OK", [("Content-Length", "2")])
        return [b"ok"]

    http = HttpServer(app, host="127.0.0.1", port=0, max_streams=1, max_body_bytes=100)
    wake = http._servers[0].pull_trigger

    def wake_late() -> None:
        ending.set()
        time.sleep(0.2)
        wake()

    http._servers[0].pull_trigger = wake_late
    http.start()
    with socket.create_connection(("127.0.0.1", http.port)) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert ending.wait(TIMEOUT_S)
        http.stop()
    assert [record.message for record in caplog.records] == []


def test_address_in_use() -> None:
    """A port that is taken is an OSError at once, and leaves no threads or sockets behind."""
    with serve(FakeEngine()) as server, pytest.raises(OSError, match="in use"):
        HttpServer(server._servers[0].application, host="127.0.0.1", port=server.port, max_streams=1, max_body_bytes=1)


@pytest.mark.parametrize(
    ("host", "expected"), [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("localhost", "localhost")]
)
def test_url(host: str, expected: str) -> None:
    """The address told can be opened from this machine; port 0 has become a real one."""
    app = create_app(ServerConfig(), FakeEngine())
    with HttpServer(app, host=host, port=0, max_streams=1, max_body_bytes=100) as server:
        assert server.url == f"http://{expected}:{server.port}"
        assert server.port > 0
        with socket.create_connection((expected, server.port), TIMEOUT_S):
            pass


def test_without_a_folder_for_temporary_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a container has no place for temporary files, long bodies and answers come and go all the same."""
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/nonexistent"])
    n = 2 << 20

    def echo(environ: "WSGIEnvironment", start_response: "StartResponse") -> list[bytes]:
        body = environ["wsgi.input"].read()
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]

    with HttpServer(echo, host="127.0.0.1", port=0, max_streams=1, max_body_bytes=n) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT_S)
        connection.request("POST", "/", b"x" * n)
        assert connection.getresponse().read() == b"x" * n
        connection.close()
