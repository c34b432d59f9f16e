"""Every refusal comes in OpenAI's shape, with the status its clients act on."""

import json
from typing import Any

import pytest
from flask.testing import FlaskClient

from server.app import create_app
from server.config import ServerConfig
from server.engine.errors import ContextLengthError, EngineError, QueueFullError
from server.engine.events import Failed, Started
from server.engine.protocol import EngineStatus
from tests.server.fake_engine import FakeEngine

COMPLETIONS = "/v1/completions"
CHAT = "/v1/chat/completions"
MESSAGES = [{"role": "user", "content": "hi"}]


def error_of(response: Any, status: int) -> dict[str, Any]:
    """The error of a response, once its shape and status are what they must be."""
    assert response.status_code == status, response.text
    body = response.get_json()
    assert set(body) == {"error"}
    assert {"message", "type", "param", "code"} <= set(body["error"])
    assert body["error"]["message"]
    return dict(body["error"])


@pytest.mark.parametrize("path", [COMPLETIONS, CHAT])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b'{"prompt": NaN}',
        b"[" * 4000,
        b'{"seed": ' + b"9" * 5000 + b"}",
        b"[]",
        b'"text"',
        b"null",
    ],
    ids=["empty", "cut", "not-utf8", "nan", "deep", "long-number", "array", "string", "null"],
)
def test_bad_json(client: FlaskClient, path: str, body: bytes) -> None:
    """A body that is not a JSON object is a 400, whatever is wrong with it."""
    error = error_of(client.post(path, data=body, content_type="application/json"), 400)

    assert "body" in error["message"]
    assert "sys." not in error["message"]  # what Python's own error advises is not for who asks a server


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("prompt", 1),
        ("prompt", {}),
        ("prompt", [1, {}]),
        ("prompt", [1, True]),
        ("prompt", [-1]),
        ("prompt", [1000]),
        ("prompt", []),
        ("prompt", None),
        ("prompt", "\ud800"),
        ("max_tokens", "20"),
        ("max_tokens", 1.5),
        ("max_tokens", True),
        ("max_tokens", -2),
        ("temperature", "hot"),
        ("temperature", -1),
        ("temperature", True),
        ("temperature", 1e400),
        ("top_p", 1.1),
        ("top_k", 0.5),
        ("min_p", []),
        ("seed", "x"),
        ("stop", 1),
        ("stop", ["a", 1]),
        ("stop", "\udfff"),
        ("stream", "yes"),
        ("stream", 1),
        ("stream_options", []),
        ("presence_penalty", 300),
        ("frequency_penalty", -300),
        ("repeat_penalty", 0),
        ("cache_prompt", 0),
        ("echo", "no"),
        ("n", True),
        ("n", 0),
        ("best_of", 0),
        ("logprobs", -1),
        ("logit_bias", [1]),
        ("logit_bias", [[1000, 1]]),
        ("logit_bias", {"5": "1"}),
        ("mirostat", 3),
        ("typical_p", 1.5),
        ("samplers", "kpt?"),
        ("samplers", "k" * 65),
        ("samplers", ["top_k"] * 65),
        ("response_format", 1),
        ("functions", [{}]),
        ("suffix", "end"),
    ],
)
def test_wrong_field(client: FlaskClient, fake: FakeEngine, field: str, value: object) -> None:
    """A known field of the wrong type, out of range or not supported is a 400 that names it; nothing is generated."""
    body = {"prompt": "hi", field: value}
    data = json.dumps(body).replace("Infinity", "1e400")
    error = error_of(client.post(COMPLETIONS, data=data, content_type="application/json"), 400)

    assert error["param"] == field
    assert field in error["message"]
    assert fake.requests == []


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("seed", 10**20, "at most 18,446,744,073,709,551,615"),
        ("seed", -(10**20), "at least -9,223,372,036,854,775,808"),
        ("top_k", -2, "at least -1"),
        ("top_p", 2, "0 to 1"),
    ],
)
def test_the_bound_that_was_passed(client: FlaskClient, field: str, value: int, expected: str) -> None:
    """A number out of range is told the bound that it has passed."""
    error = error_of(client.post(COMPLETIONS, json={"prompt": "hi", field: value}), 400)

    assert error["message"] == f"{field} is {value}, expected {expected}"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": ["hi"]}, "messages[0]"),
        ({"messages": [{"content": "hi"}]}, "messages[0].role"),
        ({"messages": [{"role": 1, "content": "hi"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": 1}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [1]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0].image_url"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
        ({"messages": MESSAGES, "tools": [{"type": "function"}]}, "tools[0]"),
        ({"messages": MESSAGES, "tools": [{"function": {}}]}, "tools[0].function.name"),
        ({"messages": MESSAGES, "tool_choice": "required"}, "tool_choice"),
        ({"messages": MESSAGES, "response_format": {"type": "xml"}}, "response_format.type"),
        ({"messages": MESSAGES, "response_format": {"type": "json_schema"}}, "response_format.json_schema.schema"),
        ({"messages": MESSAGES, "json_schema": {"type": "nonsense"}}, "json_schema"),
        ({"messages": MESSAGES, "grammar": "x", "json_schema": {"type": "object"}}, "grammar"),
        ({"messages": MESSAGES, "logprobs": "yes"}, "logprobs"),
        ({"messages": MESSAGES, "top_logprobs": 2}, "top_logprobs"),
        ({"messages": MESSAGES, "stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
        ({"messages": MESSAGES, "logit_bias": 1}, "logit_bias"),
        ({"messages": MESSAGES, "logit_bias": {"5": "1"}}, "logit_bias"),
        ({"messages": MESSAGES, "chat_template_kwargs": "x"}, "chat_template_kwargs"),
    ],
)
def test_wrong_chat_field(client: FlaskClient, body: dict[str, Any], param: str) -> None:
    """In a conversation, the error names the message and the part that is wrong."""
    assert error_of(client.post(CHAT, json=body), 400)["param"] == param


@pytest.mark.parametrize(
    "body",
    [
        {"n": 1, "best_of": 1, "suffix": "", "logprobs": None, "echo": False, "grammar": "", "typical_p": 1.0},
        {"tools": [], "tool_choice": "auto", "response_format": {"type": "text"}, "mirostat": 0, "top_n_sigma": -1},
        {"user": "me", "store": True, "metadata": {}, "unknown": [1], "temperature": None, "stop": None, "seed": None},
    ],
)
def test_harmless_fields(client: FlaskClient, body: dict[str, Any]) -> None:
    """Unsupported fields that ask for nothing, unknown fields and null are no errors."""
    assert client.post(COMPLETIONS, json={"prompt": "hi", **body}).status_code == 200


def test_unknown_route(client: FlaskClient) -> None:
    """An unknown path is a 404 that says where the others are listed."""
    assert "docs/serve.md" in error_of(client.get("/v1/nothing"), 404)["message"]


def test_wrong_method(client: FlaskClient) -> None:
    """A wrong method is a 405 with Allow."""
    response = client.get(COMPLETIONS)

    assert error_of(response, 405)["code"] == "method_not_allowed"
    assert "POST" in response.headers["Allow"]


def test_wrong_content_type(client: FlaskClient) -> None:
    """A form is a 415; anything else is read as JSON, as llama-server does: `curl -d` says it were a form's fields."""
    data = json.dumps({"prompt": "hi"})

    error_of(client.post(COMPLETIONS, data=data, content_type="multipart/form-data"), 415)
    packed = client.post(COMPLETIONS, data=data, headers={"Content-Encoding": "gzip"})
    assert "gzip" in error_of(packed, 415)["message"]
    for kind in (None, "text/plain", "application/x-www-form-urlencoded"):
        assert client.post(COMPLETIONS, data=data, content_type=kind).status_code == 200


def test_body_too_large(client: FlaskClient) -> None:
    """A body over the limit is a 413."""
    error = error_of(client.post(COMPLETIONS, json={"prompt": "x" * 9000}), 413)

    assert "8,192" in error["message"]


def test_context_length(client: FlaskClient, fake: FakeEngine) -> None:
    """A prompt that can never fit is a 400 with OpenAI's code, so that clients do not try again."""
    fake.refusal = ContextLengthError(n_prompt=120, n_ctx_seq=100)
    error = error_of(client.post(COMPLETIONS, json={"prompt": "hi"}), 400)

    assert error["code"] == "context_length_exceeded"
    assert (error["type"], error["n_prompt_tokens"], error["n_ctx"]) == ("exceed_context_size_error", 120, 100)
    assert "120" in error["message"]
    assert "100" in error["message"]


def test_queue_full(client: FlaskClient, fake: FakeEngine) -> None:
    """A full queue is a 429 that says when to try again."""
    fake.refusal = QueueFullError("64 wait", retry_after_s=2.5)
    response = client.post(CHAT, json={"messages": MESSAGES})

    assert error_of(response, 429)["code"] == "rate_limit_exceeded"
    assert response.headers["Retry-After"] == "3"


def test_loading(client: FlaskClient, fake: FakeEngine) -> None:
    """While the model loads everything but /health is a 503 with Retry-After."""
    fake.status = EngineStatus.LOADING

    for response in (client.post(COMPLETIONS, json={"prompt": "hi"}), client.get("/v1/models")):
        assert error_of(response, 503)["message"] == "Loading model"
        assert response.headers["Retry-After"] == "1"


def test_failed_load(client: FlaskClient, fake: FakeEngine) -> None:
    """When the model could not be loaded the reason is told."""
    fake.status = EngineStatus.FAILED
    fake.error = EngineError("no memory")

    assert "no memory" in error_of(client.get("/v1/models"), 503)["message"]


@pytest.mark.parametrize("refusal", [EngineError("llama_decode failed"), RuntimeError("oops")])
def test_engine_failure(client: FlaskClient, fake: FakeEngine, refusal: Exception) -> None:
    """A failure that is not the request's fault is a 500; an unexpected one does not show its inside."""
    fake.refusal = refusal
    error = error_of(client.post(COMPLETIONS, json={"prompt": "hi"}), 500)

    assert error["type"] == "server_error"
    assert "oops" not in error["message"]


def test_failure_while_generating() -> None:
    """A generation that fails before its end is a 500, not a cut answer."""
    app = create_app(ServerConfig(), FakeEngine([Started(), Failed(message="the cable fell out")]))
    error = error_of(app.test_client().post(COMPLETIONS, json={"prompt": "hi"}), 500)

    assert error["message"] == "the cable fell out"


def test_template_refusal() -> None:
    """What a chat template says against a conversation reaches the client as a 400."""
    from dataclasses import replace

    from tests.server.fake_engine import INFO

    info = replace(INFO, chat_template="{{ raise_exception('roles must alternate') }}")
    app = create_app(ServerConfig(), FakeEngine(info=info))
    error = error_of(app.test_client().post(CHAT, json={"messages": MESSAGES}), 400)

    assert "roles must alternate" in error["message"]
