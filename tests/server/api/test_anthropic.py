"""Anthropic's words for a conversation: counted, answered, streamed."""

import json
from dataclasses import replace
from typing import Any

import pytest
from flask.testing import FlaskClient

from server.api.anthropic_input import as_chat
from server.api.schema import Fields
from server.app import create_app
from server.config import ServerConfig
from server.engine.errors import QueueFullError
from server.engine.events import Failed, Finished, Piece, Started
from server.engine.protocol import EngineStatus
from tests.server.fake_engine import FakeEngine, finished, named_events

PATH = "/v1/messages"


def test_count(client: FlaskClient) -> None:
    """A conversation has as many tokens as the same one of chat."""
    asked = {"system": "s", "messages": [{"role": "user", "content": [{"type": "text", "text": "q"}]}]}
    chat = {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]}
    counted = client.post("/v1/messages/count_tokens", json=asked).get_json()

    assert counted == {
        "input_tokens": client.post("/v1/chat/completions/input_tokens", json=chat).get_json()["input_tokens"]
    }


def test_calls_and_results() -> None:
    """A call is the assistant's, what came of it a tool's message; an image is refused by its place."""
    blocks = [{"type": "tool_use", "id": "c", "name": "f", "input": {"a": 1}}]
    results = [{"type": "tool_result", "tool_use_id": "c", "content": "r"}, {"type": "text", "text": "more"}]
    messages = [{"role": "assistant", "content": blocks}, {"role": "user", "content": results}]
    call, result, user = as_chat(Fields({"messages": messages})).values["messages"]

    assert call["tool_calls"][0]["function"] == {"name": "f", "arguments": {"a": 1}}
    assert (result["role"], result["content"]) == ("tool", "r")
    assert user["content"] == [{"type": "text", "text": "more"}]


def test_image(client: FlaskClient) -> None:
    """A block of a kind that is not had is refused."""
    messages = [{"role": "user", "content": [{"type": "image"}]}]
    reply = client.post("/v1/messages/count_tokens", json={"messages": messages})
    assert reply.get_json()["error"]["code"] == "unsupported_parameter"


def test_what_is_not_had(client: FlaskClient) -> None:
    """Sound, slot files and properties to set are 501, as llama-server without their flags."""
    for path in ("/slots/0", "/props", "/v1/audio/transcriptions"):
        assert client.post(path, json={}).status_code == 501


TOOL = {"name": "f", "input_schema": {"type": "object", "properties": {"a": {"type": "integer"}}}}
CALL = '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'
ASKED: dict[str, Any] = {"max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}


def events_of(client: FlaskClient, body: dict[str, Any]) -> list[dict[str, Any]]:
    """The events of a stream."""
    return named_events(client.post(PATH, json={**body, "stream": True}).data)


def put_together(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The blocks that a client makes of the events, which come one after another."""
    blocks: list[dict[str, Any]] = []
    arguments = ""
    for event in events:
        if event["type"] == "content_block_start":
            assert event["index"] == len(blocks)
            blocks.append(dict(event["content_block"]))
            arguments = ""
        elif event["type"] == "content_block_delta":
            assert event["index"] == len(blocks) - 1
            delta = dict(event["delta"])
            kind = delta.pop("type")
            if kind == "input_json_delta":
                arguments += delta["partial_json"]
                continue
            ((key, value),) = delta.items()
            blocks[-1][key] = blocks[-1].get(key, "") + value
        elif event["type"] == "content_block_stop" and blocks[-1]["type"] == "tool_use":
            blocks[-1]["input"] = json.loads(arguments)
    return blocks


def test_message(client: FlaskClient, fake: FakeEngine) -> None:
    """An answer is a message of blocks, with why it ended; tokens that were in memory are counted apart."""
    reply = client.post(PATH, json={**ASKED, "system": "s", "temperature": 0.5, "top_k": 3}).get_json()

    assert (reply["type"], reply["role"], reply["content"]) == (
        "message", "assistant", [{"type": "text", "text": "Hello wörld"}],
    )  # fmt: skip
    assert (reply["stop_reason"], reply["stop_sequence"]) == ("end_turn", None)
    n_prompt = len(fake.requests[-1].prompt)
    assert reply["usage"] == {
        "input_tokens": n_prompt - 1, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 1,
        "output_tokens": 2,
    }  # fmt: skip
    assert (fake.requests[-1].max_tokens, fake.requests[-1].sampling.top_k) == (9, 3)


@pytest.mark.parametrize(
    ("end", "reason", "stopped"),
    [
        (finished("length"), "max_tokens", None),
        (replace(finished(), stop="END"), "stop_sequence", "END"),
        (replace(finished(), stop="of the template"), "end_turn", None),
    ],
)
def test_why_it_ended(client: FlaskClient, fake: FakeEngine, end: Finished, reason: str, stopped: str | None) -> None:
    """The limit, a stop string of the client's, which is named, or the model, by a string of its template, too."""
    fake.events = (Started(), Piece(text="so"), end)
    body = {**ASKED, "stop_sequences": ["END"]}
    reply, last = client.post(PATH, json=body).get_json(), events_of(client, body)[-2]

    assert (reply["stop_reason"], reply["stop_sequence"]) == (reason, stopped)
    assert last["delta"] == {"stop_reason": reason, "stop_sequence": stopped}


def test_stream_is_the_message(client: FlaskClient, fake: FakeEngine) -> None:
    """Thoughts, words and calls are blocks that come one behind the other, and put together they are the message."""
    fake.events = (Started(), *(Piece(text=c) for c in f"<think>\nhm</think>\n\nSo:\n{CALL}"), finished())
    fake._info = replace(fake.info, chat_template=fake.info.chat_template + "{# <think> #}")
    body = {**ASKED, "tools": [TOOL]}
    reply, events = client.post(PATH, json=body).get_json(), events_of(client, body)

    assert [block["type"] for block in reply["content"]] == ["thinking", "text", "tool_use"]
    assert reply["content"][0]["thinking"] == "hm"
    assert (reply["content"][2]["name"], reply["content"][2]["input"]) == ("f", {"a": 1})
    assert reply["stop_reason"] == "tool_use"
    ids = [{**block, "id": ""} for block in put_together(events)]
    assert ids == [{**block, "id": ""} for block in reply["content"]]
    types = [event["type"] for event in events if event["type"] != "content_block_delta"]
    pair = ["content_block_start", "content_block_stop"]
    assert types == ["message_start", *pair * 3, "message_delta", "message_stop"]


def test_choices(client: FlaskClient, fake: FakeEngine) -> None:
    """`any` and a tool's name force a call, `none` forbids one, and one that is not there is refused."""
    for choice, forced in (({"type": "any"}, True), ({"type": "tool", "name": "f"}, True), ({"type": "none"}, False)):
        assert client.post(PATH, json={**ASKED, "tools": [TOOL], "tool_choice": choice}).status_code == 200
        assert (fake.requests[-1].sampling.grammar is not None) == forced
    for wrong in ({"type": "tool", "name": "g"}, {"type": "some"}, "any"):
        assert client.post(PATH, json={**ASKED, "tools": [TOOL], "tool_choice": wrong}).status_code == 400
    hosted = {"type": "web_search_20250305", "name": "web_search"}
    assert client.post(PATH, json={**ASKED, "tools": [hosted]}).get_json()["error"]["param"] == "tools[0]"


def test_threads(client: FlaskClient) -> None:
    """A conversation that was to be kept is refused in the words that make clients send all of it from then on."""
    error = client.post(PATH, json={**ASKED, "thread": {"type": "create"}}).get_json()["error"]

    assert (error["param"], error["details"]["error_code"]) == ("thread", "thread_unsupported_request")


def test_thinking(client: FlaskClient, fake: FakeEngine) -> None:
    """Each kind of thinking but `disabled` is the template's `enable_thinking`; others are refused."""
    fake._info = replace(fake.info, chat_template="{{ enable_thinking }}")
    for kind, said in (("enabled", "True"), ("adaptive", "True"), ("between_tools", "True"), ("disabled", "False")):
        client.post(PATH, json={**ASKED, "thinking": {"type": kind}})
        assert "".join(map(chr, fake.requests[-1].prompt)) == said
    assert client.post(PATH, json={**ASKED, "thinking": {"type": "some"}}).status_code == 400


def test_models(client: FlaskClient) -> None:
    """The list of models and its entries are Anthropic's, too."""
    listed = client.get("/v1/models").get_json()
    (entry,) = listed["data"]

    assert (entry["type"], entry["display_name"], entry["created_at"][-1]) == ("model", "fake", "Z")
    assert (listed["first_id"], listed["last_id"], listed["has_more"]) == ("fake", "fake", False)
    assert client.get("/v1/models/fake").get_json() == entry


def test_a_schema(client: FlaskClient, fake: FakeEngine) -> None:
    """`output_config.format` holds the answer to a JSON schema."""
    form = {"type": "json_schema", "schema": {"type": "object"}}
    client.post(PATH, json={**ASKED, "output_config": {"format": form}})

    assert fake.requests[-1].sampling.grammar is not None


def test_a_stamp_costs_nothing(client: FlaskClient, fake: FakeEngine) -> None:
    """The stamp that Claude Code puts in front, another one each time, does not make each prompt a new one."""
    for stamp in ("a1b2c", "00000"):
        system = [{"type": "text", "text": f"x-anthropic-billing-header: cc_version=2.1; cch={stamp}; Be brief."}]
        client.post(PATH, json={**ASKED, "system": system})

    assert fake.requests[-1].prompt == fake.requests[-2].prompt


def test_errors_in_their_shape(fake: FakeEngine) -> None:
    """Whatever is refused is `{"type": "error", "error": ...}` with Anthropic's types: keys, bodies, the queue."""
    client = create_app(ServerConfig(api_keys=("k",)), fake).test_client()
    key = {"X-Api-Key": "k"}

    def refused(headers: dict[str, str], body: Any = ASKED) -> tuple[int, str, str]:
        answer = client.post(PATH, json=body, headers=headers)
        assert answer.mimetype == "application/json"
        return answer.status_code, answer.get_json()["type"], answer.get_json()["error"]["type"]

    assert refused({}) == (401, "error", "authentication_error")
    assert refused(key, {**ASKED, "messages": 5}) == (400, "error", "invalid_request_error")
    fake.refusal = QueueFullError("full", retry_after_s=3.0)
    assert refused(key) == (429, "error", "rate_limit_error")
    fake.status = EngineStatus.LOADING
    assert refused(key) == (503, "error", "overloaded_error")


def test_error_in_a_stream(client: FlaskClient, fake: FakeEngine) -> None:
    """An error behind the beginning is an event of its own, which clients raise."""
    fake.events = (Started(), Failed(message="gone", fault="worker"))
    last = events_of(client, ASKED)[-1]

    assert (last["type"], last["error"]["type"]) == ("error", "overloaded_error")
