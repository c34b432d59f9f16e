"""What /v1/completions and /v1/chat/completions answer, and what they ask of the engine."""

from threading import Timer

import pytest
from flask.testing import FlaskClient

from server.api.answers import Answers
from server.app import create_app
from server.config import ServerConfig
from server.engine.events import Failed, Piece, Started
from server.engine.request import GenerationRequest
from server.engine.sampling import Sampling
from tests.server.fake_engine import FakeEngine, finished, sse_data


def test_completion(client: FlaskClient) -> None:
    """A completion has the whole text, the reason it ended, and the tokens it took."""
    body = client.post("/v1/completions", json={"prompt": "Say"}).get_json()

    assert body["object"] == "text_completion"
    assert body["model"] == "fake"
    assert body["choices"] == [{"index": 0, "text": "Hello wörld", "logprobs": None, "finish_reason": "stop"}]
    assert body["usage"] == {
        "prompt_tokens": 3,
        "completion_tokens": 2,
        "total_tokens": 5,
        "prompt_tokens_details": {"cached_tokens": 1},
    }


def test_timings(client: FlaskClient) -> None:
    """Rates divide by what was computed: cached prompt tokens and the first generated one are not in the time."""
    timings = client.post("/v1/completions", json={"prompt": "Say"}).get_json()["timings"]

    assert timings == {
        "queue_ms": 500.0,
        "cache_n": 1,
        "prompt_n": 2,
        "prompt_ms": 2000.0,
        "prompt_per_token_ms": 1000.0,
        "prompt_per_second": 1.0,
        "predicted_n": 2,
        "predicted_ms": 250.0,
        "predicted_per_token_ms": 250.0,
        "predicted_per_second": 4.0,
    }


def test_chat(client: FlaskClient, fake: FakeEngine) -> None:
    """A chat answer has the assistant's message; the prompt is what the model's template makes of the conversation."""
    messages = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
    ]
    body = client.post("/v1/chat/completions", json={"messages": messages}).get_json()

    assert body["object"] == "chat.completion"
    assert body["choices"][0]["message"] == {"role": "assistant", "content": "Hello wörld", "refusal": None}
    assert fake.detokenize(fake.requests[0].prompt) == "[system]be brief[user]a\nb"


@pytest.mark.parametrize(("seed", "meant"), [(-1, None), (4294967295, None), (4294967294, 4294967294), (0, 0)])
def test_seeds(client: FlaskClient, fake: FakeEngine, seed: int, meant: int | None) -> None:
    """4294967295 is llama-server's word for another seed each time, as -1 is."""
    client.post("/v1/completions", json={"prompt": "a", "seed": seed})

    assert [request.sampling.seed for request in fake.requests] == [meant]


def test_request(client: FlaskClient, fake: FakeEngine) -> None:
    """Every supported field reaches the engine."""
    fields = {
        "prompt": [1, 2, 3],
        "max_tokens": 7,
        "temperature": 0.5,
        "top_k": 5,
        "top_p": 0.5,
        "min_p": 0.25,
        "seed": 11,
        "repeat_penalty": 1.5,
        "repeat_last_n": -1,
        "frequency_penalty": 0.5,
        "presence_penalty": -0.5,
        "logit_bias": {"5": -100},
        "ignore_eos": True,
        "stop": ["a", "", "bc"],
        "cache_prompt": False,
    }
    client.post("/v1/completions", json=fields)

    assert fake.requests == [
        GenerationRequest(
            prompt=(1, 2, 3),
            max_tokens=7,
            stop=("a", "bc"),
            cache_prompt=False,
            whole=True,
            sampling=Sampling(
                temperature=0.5,
                top_k=5,
                top_p=0.5,
                min_p=0.25,
                seed=11,
                repeat_penalty=1.5,
                repeat_last_n=-1,
                frequency_penalty=0.5,
                presence_penalty=-0.5,
                logit_bias=((5, -100.0),),
                ignore_eos=True,
            ),
        )
    ]


def test_defaults(client: FlaskClient, fake: FakeEngine) -> None:
    """Without fields the engine is asked for what llama-server would do: its sampling, and no limit."""
    client.post("/v1/completions", json={"prompt": "a"})

    assert fake.requests == [GenerationRequest(prompt=(97,), whole=True)]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"max_tokens": 5, "max_completion_tokens": 3, "n_predict": 1}, 1),
        ({"max_tokens": 5, "max_completion_tokens": 3}, 3),
        ({"n_predict": 1}, 1),
        ({"max_tokens": -1}, None),
        ({"max_tokens": 0}, 0),
    ],
)
def test_max_tokens(client: FlaskClient, fake: FakeEngine, fields: dict[str, int], expected: int | None) -> None:
    """Of the names for the limit llama-server's wins, then OpenAI's newer one; -1 is none, 0 is none at all."""
    client.post("/v1/completions", json={"prompt": "a", **fields})

    assert fake.requests[0].max_tokens == expected


@pytest.mark.parametrize("prompt", ["abc", ["abc"], [97, 98, 99], [[97, 98, 99]]])
def test_prompt_forms(client: FlaskClient, fake: FakeEngine, prompt: object) -> None:
    """A prompt is a string, its tokens, or either in an array of one."""
    client.post("/v1/completions", json={"prompt": prompt})

    assert fake.requests[0].prompt == (97, 98, 99)


@pytest.mark.parametrize("prompt", ["abc", [97, 98, 99]])
def test_echo(client: FlaskClient, prompt: object) -> None:
    """With echo the prompt's text stands before the answer, streamed or not."""
    request = {"prompt": prompt, "echo": True}
    whole = client.post("/v1/completions", json=request).get_json()["choices"][0]["text"]
    chunks = sse_data(client.post("/v1/completions", json={**request, "stream": True}).data)

    assert whole == "abcHello wörld"
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks[:-1]) == whole


def test_completion_stream(client: FlaskClient) -> None:
    """A stream has a chunk for each piece, one with the reason, timings and, as llama-server's, usage, then [DONE]."""
    response = client.post("/v1/completions", json={"prompt": "Say", "stream": True})
    chunks = sse_data(response.data)

    assert response.headers["Content-Type"].startswith("text/event-stream")
    assert response.headers["X-Accel-Buffering"] == "no"
    assert [chunk["choices"][0]["text"] for chunk in chunks[:-1]] == ["Hello", " wörld", ""]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks[:-1]] == [None, None, "stop"]
    assert len({chunk["id"] for chunk in chunks[:-1]}) == 1
    assert chunks[2]["timings"]["predicted_n"] == 2
    assert all("usage" not in chunk for chunk in chunks[:2])
    assert chunks[2]["usage"]["completion_tokens"] == 2
    assert chunks[-1] == "[DONE]"


def test_chat_stream(client: FlaskClient) -> None:
    """The role comes with the first text; usage comes last, in a chunk without choices, only when asked for."""
    request = {
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    chunks = sse_data(client.post("/v1/chat/completions", json=request).data)

    assert [chunk["choices"][0]["delta"] for chunk in chunks[:3]] == [
        {"role": "assistant", "content": "Hello"},
        {"content": " wörld"},
        {},
    ]
    assert [chunk["usage"] for chunk in chunks[:3]] == [None] * 3
    assert chunks[3]["choices"] == []
    assert chunks[3]["usage"]["total_tokens"] == 5
    assert chunks[4] == "[DONE]"


def test_empty_chat_stream() -> None:
    """An answer without a word still names its role."""
    app = create_app(ServerConfig(), FakeEngine([finished("length")]))
    request = {"messages": [{"role": "user", "content": "hi"}], "stream": True}
    chunks = sse_data(app.test_client().post("/v1/chat/completions", json=request).data)

    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert chunks[0]["choices"][0]["finish_reason"] == "length"


def test_error_in_stream() -> None:
    """A failure behind the first chunk is an event with the error, and no [DONE]."""
    app = create_app(ServerConfig(), FakeEngine([Started(), Piece(text="Hel"), Failed(message="gone")]))
    chunks = sse_data(app.test_client().post("/v1/completions", json={"prompt": "a", "stream": True}).data)

    assert chunks[-1]["error"]["message"] == "gone"
    assert chunks[-1]["error"]["type"] == "server_error"


def test_line_separators_in_stream() -> None:
    """Characters that some clients take for line ends do not stand in an event as they are."""
    text = "a\u2028b\x85c\r\nd"
    app = create_app(ServerConfig(), FakeEngine([Piece(text=text), finished()]))
    body = app.test_client().post("/v1/completions", json={"prompt": "a", "stream": True}).data

    assert len(body.decode().splitlines()) == body.count(b"\n")
    assert sse_data(body)[0]["choices"][0]["text"] == text


def test_ping_in_silence() -> None:
    """A stream that has nothing to say sends comments, so that nobody in between closes it."""
    engine = FakeEngine([])
    response = (
        create_app(ServerConfig(ping_s=0.0, poll_s=0.001), engine)
        .test_client()
        .post("/v1/completions", json={"prompt": "a", "stream": True}, buffered=False)
    )
    chunks = iter(response.response)

    assert next(chunks) == b": ping\n\n"
    assert next(chunks) == b": ping\n\n"
    response.close()


@pytest.mark.parametrize("never", [0, -1])
def test_no_ping(never: int) -> None:
    """A request that wants no comments in its stream's silence gets none: 0 is as good as -1."""
    engine = FakeEngine([])
    client = create_app(ServerConfig(ping_s=0.0, poll_s=0.001), engine).test_client()
    body = {"prompt": "a", "stream": True, "sse_ping_interval": never}
    Timer(0.1, lambda: engine.generations[0].publish(Piece(text="late"))).start()
    response = client.post("/v1/completions", json=body, buffered=False)

    assert b"late" in next(iter(response.response))
    response.close()


@pytest.mark.parametrize("read_first", [True, False])
def test_closed_stream_cancels(fake: FakeEngine, read_first: bool) -> None:
    """Closing a stream cancels its generation, even one whose first chunk was never taken."""
    fake.events = (Piece(text="a"),)
    app = create_app(ServerConfig(poll_s=0.001), fake)
    response = app.test_client().post("/v1/completions", json={"prompt": "a", "stream": True}, buffered=False)
    if read_first:
        next(iter(response.response))
    response.close()

    assert fake.generations[0].cancelled


@pytest.mark.parametrize("stream", [True, False])
def test_silent_disconnect_cancels(fake: FakeEngine, stream: bool) -> None:
    """A client that waitress says has gone ends its generation before the next chunk is due."""
    fake.events = (Started(),)
    app = create_app(ServerConfig(poll_s=0.001), fake)
    response = app.test_client().post(
        "/v1/completions",
        json={"prompt": "a", "stream": stream},
        environ_overrides={"waitress.client_disconnected": lambda: True},
    )

    assert response.data == b""
    response.close()
    assert fake.generations[0].cancelled


def test_a_list_ends_with_its_client() -> None:
    """Of many prompts none is begun any more when the client has gone, however fast their answers come."""
    engine = FakeEngine()
    answers = Answers(engine, [GenerationRequest(prompt=(1,))] * 100)
    seen = [event for _, event in answers.events(0.0, lambda: len(engine.requests) > 20)]
    answers.cancel()

    assert len(seen) > 1
    assert 20 < len(engine.requests) < 30


def test_too_many_prompts(fake: FakeEngine) -> None:
    """A list is refused by its length before any of it is read."""
    app = create_app(ServerConfig(), fake)
    reply = app.test_client().post("/v1/completions", json={"prompt": ["a"] * 10_001})

    assert reply.status_code == 400
    assert reply.get_json()["error"]["message"] == "prompt has 10,001 entries, at most 10,000 are taken at a time"
    assert fake.requests == []
