"""Anthropic's words for a conversation, counted."""

from flask.testing import FlaskClient

from server.api.anthropic import as_chat
from server.api.schema import Fields


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
    """Reranking, slot files and properties to set are 501, as llama-server without their flags."""
    for path in ("/v1/rerank", "/slots/0", "/props"):
        assert client.post(path, json={}).status_code == 501
