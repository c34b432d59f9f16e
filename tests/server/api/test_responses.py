"""OpenAI's responses API: what is asked becomes a conversation, what is answered items and their events."""

from typing import Any

import pytest
from flask.testing import FlaskClient

from server.engine.events import Piece, Started
from tests.server.fake_engine import ANSWER, FakeEngine, finished, named_events

TOOL = {"type": "function", "name": "f", "parameters": {"type": "object"}}
CALL = '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'
PATH = "/v1/responses"


def prompt(fake: FakeEngine) -> str:
    """The text that was asked last."""
    return "".join(map(chr, fake.requests[-1].prompt))


def events_of(client: FlaskClient, body: dict[str, Any]) -> list[dict[str, Any]]:
    """The events of a stream."""
    return named_events(client.post(PATH, json={**body, "stream": True}).data)


def test_whole(client: FlaskClient) -> None:
    """A response is one message, with its status and the tokens that it took."""
    reply = client.post(PATH, json={"input": "hi", "instructions": "be brief"}).get_json()

    assert (reply["object"], reply["status"], reply["instructions"]) == ("response", "completed", "be brief")
    assert [(item["type"], item["content"][0]["text"]) for item in reply["output"]] == [("message", "Hello wörld")]
    assert (reply["usage"]["input_tokens"], reply["usage"]["output_tokens"]) == (3, 2)


def test_what_is_asked(client: FlaskClient, fake: FakeEngine) -> None:
    """Instructions, messages, calls and what came of them are the conversation; limits and formats are chat's."""
    items = [
        {"role": "user", "content": [{"type": "input_text", "text": "q"}]},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "r"},
        {"role": "user", "content": "more"},
    ]
    form = {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}}}
    client.post(PATH, json={"input": items, "instructions": "I", "max_output_tokens": 9, "text": form})

    assert prompt(fake) == "[system]I[user]q[assistant][tool]r[user]more"
    assert fake.requests[-1].max_tokens == 9
    assert fake.requests[-1].sampling.grammar is not None


def test_streamed(client: FlaskClient) -> None:
    """Events are numbered, an item is opened, filled and closed, and the last event has the whole response."""
    events = events_of(client, {"input": "hi"})

    assert [event["type"].removeprefix("response.") for event in events] == [
        "created", "in_progress", "output_item.added", "content_part.added", "output_text.delta", "output_text.delta",
        "output_text.done", "content_part.done", "output_item.done", "completed",
    ]  # fmt: skip
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert events[2]["item"]["content"] == []
    assert events[3]["part"]["text"] == ""
    assert events[-1]["response"]["output"][0]["content"][0]["text"] == "Hello wörld"


def test_calls_are_items(client: FlaskClient, fake: FakeEngine) -> None:
    """Words and calls are items of their own, in a stream too, however the text is cut."""
    fake.events = (Started(), *(Piece(text=c) for c in f"Well.{CALL}"), finished())
    body = {"input": "hi", "tools": [TOOL]}
    output = client.post(PATH, json=body).get_json()["output"]
    events = events_of(client, body)

    assert [item["type"] for item in output] == ["message", "function_call"]
    assert (output[1]["name"], output[1]["arguments"]) == ("f", '{"a": 1}')
    told = "".join(e["delta"] for e in events if e["type"] == "response.function_call_arguments.delta")
    assert told == '{"a": 1}'


def test_cut_off(client: FlaskClient, fake: FakeEngine) -> None:
    """An answer that met its limit is incomplete, and says why."""
    fake.events = (*ANSWER[:-1], finished("length"))
    reply = client.post(PATH, json={"input": "hi"}).get_json()
    assert (reply["status"], reply["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("input", None), ("input", [5]), ("previous_response_id", "resp_1"), ("background", True), ("n", 2),
        ("conversation", "c"), ("tools", [{"type": "web_search"}]),
    ],
)  # fmt: skip
def test_refused(client: FlaskClient, field: str, value: object) -> None:
    """What is not had is refused by its name."""
    error = client.post(PATH, json={"input": "hi", field: value})
    assert error.status_code == 400
    assert str(error.get_json()["error"]["param"]).startswith(field)
