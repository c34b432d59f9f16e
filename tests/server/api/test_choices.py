"""Several prompts, several answers, log-probabilities: what a choice holds and where it stands."""

from typing import Any

import pytest
from flask.testing import FlaskClient

from server.engine.events import Piece, PromptScores, TokenInfo
from tests.server.fake_engine import FakeEngine, finished, sse_data


def info(token: int, text: bytes, logprob: float | None, *top: tuple[int, bytes, float]) -> TokenInfo:
    return TokenInfo(token=token, piece=text, logprob=logprob, top=top)


def choices(client: FlaskClient, **body: Any) -> list[dict[str, Any]]:
    """The choices of a completion."""
    response = client.post("/v1/completions", json={"prompt": "Say", **body})
    assert response.status_code == 200, response.text
    found: list[dict[str, Any]] = response.get_json()["choices"]
    return found


def test_prompts_and_answers(client: FlaskClient, fake: FakeEngine) -> None:
    """Answer j to prompt i is choice i * n + j; each prompt is submitted once, however many answers it gets."""
    found = choices(client, prompt=["a", [98, 99], "d"], n=2, echo=True)

    assert [choice["index"] for choice in found] == list(range(6))
    assert [choice["text"][:2].strip("H") for choice in found] == ["a", "a", "bc", "bc", "d", "d"]
    assert [(request.prompt, request.n) for request in fake.requests] == [((97,), 2), ((98, 99), 2), ((100,), 2)]


def test_prompts_in_a_stream(client: FlaskClient) -> None:
    """Chunks say whose they are, and the stream ends when all answers have."""
    response = client.post("/v1/completions", json={"prompt": ["a", "b"], "stream": True})
    *chunks, done = sse_data(response.data)
    texts = {0: "", 1: ""}
    for chunk in chunks:
        for choice in chunk["choices"]:
            texts[choice["index"]] += choice["text"]

    assert texts == {0: "Hello wörld", 1: "Hello wörld"}
    assert [c["choices"][0]["finish_reason"] for c in chunks].count("stop") == 2
    assert done == "[DONE]"


def test_legacy_logprobs(client: FlaskClient, fake: FakeEngine) -> None:
    """Lists side by side: tokens, their log-probabilities, the likely ones, and where each begins in the text."""
    fake.events = (
        Piece(text="é", tokens=(info(1, b"\xc3", -0.5, (1, b"\xc3", -0.5)), info(2, b"\xa9", -0.25, (3, b"x", -2.0)))),
        Piece(text="!", tokens=(info(4, b"!", -1.0, (4, b"!", -1.0)),)),
        finished(),
    )
    logprobs = choices(client, logprobs=1)[0]["logprobs"]

    assert fake.requests[0].n_logprobs == 1
    assert logprobs == {
        "tokens": ["bytes:\\xc3", "bytes:\\xa9", "!"],
        "token_logprobs": [-0.5, -0.25, -1.0],
        "top_logprobs": [{"bytes:\\xc3": -0.5}, {"x": -2.0}, {"!": -1.0}],
        "text_offset": [0, 0, 1],
    }


def test_echo_with_logprobs(client: FlaskClient, fake: FakeEngine) -> None:
    """The prompt's own tokens come first, the very first without a log-probability: what evaluations are made of."""
    fake.events = (
        PromptScores(start=1, tokens=(info(97, b"a", -3.0, (97, b"a", -3.0)),)),
        PromptScores(start=2, tokens=(info(121, b"y", -4.0, (121, b"y", -4.0)),)),
        Piece(text="!", tokens=(info(33, b"!", -1.0, (33, b"!", -1.0)),)),
        finished("length"),
    )
    choice = choices(client, echo=True, logprobs=1, max_tokens=1)[0]

    assert fake.requests[0].n_prompt_logprobs == 1
    assert choice["text"] == "Say!"
    assert choice["logprobs"]["tokens"] == ["S", "a", "y", "!"]
    assert choice["logprobs"]["token_logprobs"] == [None, -3.0, -4.0, -1.0]
    assert choice["logprobs"]["top_logprobs"][0] is None
    assert choice["logprobs"]["text_offset"] == [0, 1, 2, 3]


def test_chat_logprobs(client: FlaskClient, fake: FakeEngine) -> None:
    """An object a token, with its bytes; in a stream each chunk has those of its piece."""
    fake.events = (Piece(text="Yes", tokens=(info(7, b"Yes", -0.1, (7, b"Yes", -0.1), (8, b"No", -2.5)),)), finished())
    body = {"messages": [{"role": "user", "content": "Hi"}], "logprobs": True, "top_logprobs": 2}
    whole = client.post("/v1/chat/completions", json=body).get_json()["choices"][0]["logprobs"]["content"]
    first = sse_data(client.post("/v1/chat/completions", json={**body, "stream": True}).data)[0]

    assert whole == first["choices"][0]["logprobs"]["content"]
    assert whole[0]["token"] == "Yes"
    assert whole[0]["bytes"] == [89, 101, 115]
    assert [top["logprob"] for top in whole[0]["top_logprobs"]] == [-0.1, -2.5]
    assert fake.requests[0].n_logprobs == 2


def test_best_of(client: FlaskClient, fake: FakeEngine) -> None:
    """Of several answers the likeliest are kept, without their scores unless these were asked for."""
    fake.events = (
        Piece(text="bad", tokens=(info(1, b"bad", -5.0),)),
        Piece(text="good", tokens=(info(2, b"good", -1.0),), index=1),
        finished(),
    )
    fake.replicates = False
    fake.events = (*fake.events[:2], finished(), finished_at(1))
    found = choices(client, best_of=2, n=1)

    assert [(choice["index"], choice["text"], choice["logprobs"]) for choice in found] == [(0, "good", None)]
    assert fake.requests[0].n == 2


def finished_at(index: int) -> Any:
    from dataclasses import replace

    return replace(finished(), index=index)


@pytest.mark.parametrize(
    ("bias", "expected"),
    [
        ({"5": 1, "a": -2}, ((5, 1.0), (97, -2.0))),
        ([[5, 1.5], ["ab", False]], ((5, 1.5), (97, float("-inf")), (98, float("-inf")))),
    ],
)
def test_biases(client: FlaskClient, fake: FakeEngine, bias: object, expected: tuple[tuple[int, float], ...]) -> None:
    """OpenAI's object and llama-server's pairs, of ids and of texts; false bans a token."""
    choices(client, logit_bias=bias)

    assert fake.requests[0].sampling.logit_bias == expected


def test_numbers_that_other_languages_send(client: FlaskClient, fake: FakeEngine) -> None:
    """6.0 is 6, and a limit beyond 32 bits is no limit."""
    choices(client, max_tokens=6.0)
    choices(client, max_tokens=2**40)

    assert [request.max_tokens for request in fake.requests] == [6, 2**31 - 1]
