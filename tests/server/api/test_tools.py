"""Tools: what is asked of the model, what its text is read as, what the client gets."""

import json
from dataclasses import replace
from typing import Any

import pytest
from flask.testing import FlaskClient

from server.api.conversation.call_grammar import calls_gbnf
from server.api.conversation.calls import Calls
from server.api.conversation.style import HERMES, LLAMA, MISTRAL, Style
from server.app import create_app
from server.config import ServerConfig
from server.engine.events import Piece
from tests.server.api.test_gbnf import follows
from tests.server.api.test_gbnf import vocab as vocab  # a fixture
from tests.server.fake_engine import INFO, FakeEngine, finished, sse_data

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
BODY = {"messages": [{"role": "user", "content": "Paris?"}], "tools": [WEATHER]}
CALL = '{"name": "weather", "arguments": {"city": "P\\"ar}is"}}'


def read(style: Style, text: str, step: int) -> tuple[str, list[dict[str, Any]], list[dict[str, Any]]]:
    """Content, calls and deltas of a text that comes in pieces of `step` characters."""
    calls = Calls(style)
    deltas = [d for i in range(0, len(text), step) for d in calls.feed(text[i : i + step])] + calls.close()
    return calls.content, [call["function"] for call in calls.calls], deltas


@pytest.mark.parametrize("step", [1, 2, 7, 1000])
@pytest.mark.parametrize(
    ("style", "text", "content", "n_calls"),
    [
        (HERMES, f"Let me see.\n<tool_call>\n{CALL}\n</tool_call>", "Let me see.\n", 1),
        (HERMES, f"<tool_call>\n{CALL}\n</tool_call>\n<tool_call>\n{CALL}\n</tool_call>", "", 2),
        (HERMES, "No <tool is needed", "No <tool is needed", 0),
        (MISTRAL, f"[TOOL_CALLS][{CALL}, {CALL}]", "", 2),
        (LLAMA, CALL.replace("arguments", "parameters"), "", 1),
        (LLAMA, "It is sunny.", "It is sunny.", 0),
    ],
)
def test_calls_in_a_text(style: Style, text: str, content: str, n_calls: int, step: int) -> None:
    """However the text is cut, calls and content are the same, and the deltas add up to them."""
    found, calls, deltas = read(style, text, step)

    assert found == content
    assert calls == [{"name": "weather", "arguments": '{"city": "P\\"ar}is"}'}] * n_calls
    assert "".join(delta.get("content") or "" for delta in deltas) == content
    pieces = [call for delta in deltas for call in delta.get("tool_calls", ())]
    for index in range(n_calls):
        own = [piece["function"] for piece in pieces if piece["index"] == index]
        assert [piece["name"] for piece in own if "name" in piece] == ["weather"]
        assert json.loads("".join(piece["arguments"] for piece in own)) == {"city": 'P"ar}is'}


@pytest.mark.parametrize("step", [1, 1000])
@pytest.mark.parametrize(
    ("style", "text", "content", "names"),
    [
        (HERMES, 'So.<tool_call>\n{"name": "weather", "argu', "So.", ["weather"]),
        (HERMES, '<tool_call>\n{"name": "we', "", []),
        (HERMES, '<tool_call>\n{"na', "", []),
        (HERMES, "<tool_call> is a tag", "<tool_call> is a tag", []),
        (HERMES, f'<tool_call>\n{CALL}\n</tool_call>\n<tool_call>{{"name": "other"', "", ["weather", "other"]),
        (MISTRAL, f'[TOOL_CALLS][{CALL}, {{"name": "other", "arguments":', "", ["weather", "other"]),
        (MISTRAL, "[TOOL_CALLS][", "", []),
        (LLAMA, '{"name": "weather", "parameters": ', "", ["weather"]),
        (LLAMA, '{"name": "Paris", ', '{"name": "Paris", ', []),
        (LLAMA, '{"name": "weather", "wind": ', '{"name": "weather", "wind": ', []),
    ],
)
def test_calls_that_are_cut_off(style: Style, text: str, content: str, names: list[str], step: int) -> None:
    """A call that ends before its arguments is one without any from its name on, and no text of the answer's."""
    calls = Calls(style, {"weather": {}})
    deltas = [d for i in range(0, len(text), step) for d in calls.feed(text[i : i + step])] + calls.close()

    assert [call["function"]["name"] for call in calls.calls] == names
    assert calls.content == "".join(delta.get("content") or "" for delta in deltas) == content
    told = [call["function"]["name"] for d in deltas for call in d.get("tool_calls", ()) if "name" in call["function"]]
    assert told == names
    assert not any("arguments" in c["function"] and c["function"]["arguments"] for c in calls.calls[1:])


@pytest.mark.parametrize("step", [1, 3, 1000])
@pytest.mark.parametrize(
    ("text", "content", "names"),
    [
        (CALL, "", ["weather"]),
        (f"{CALL}\n<tool_call>\n{CALL}\n</tool_call>", "", ["weather", "weather"]),
        (f"So: {CALL}", f"So: {CALL}", []),
        (f"```json\n{CALL}\n```", "", ["weather"]),
        (f"```\n{CALL}\n```\nSo", "So", ["weather"]),
        ("```json\n[]\n```", "```json\n[]\n```", []),
        ("```js", "```js", []),
        ("`x` is", "`x` is", []),
        (CALL.replace("weather", "other"), CALL.replace("weather", "other"), []),
        ('{"wind": 3, "name": "weather"}', '{"wind": 3, "name": "weather"}', []),
        ('{"name": "weather", "wind": 3}', '{"name": "weather", "wind": 3}', []),
        ('{"name": "weather", "argum', "", ["weather"]),
        ('{"name": "wea', '{"name": "wea', []),
        ('{"wi', '{"wi', []),
    ],
)
def test_calls_without_marks(text: str, content: str, names: list[str], step: int) -> None:
    """Smaller models leave the marks away: an answer that is a call of a known function but for these is one."""
    calls = Calls(HERMES, {"weather": {}})
    for i in range(0, len(text), step):
        calls.feed(text[i : i + step])
    calls.close()
    assert (calls.content, [call["function"]["name"] for call in calls.calls]) == (content, names)


@pytest.mark.parametrize("is_streamed", [False, True])
@pytest.mark.parametrize(
    ("text", "stop", "reason"),
    [
        (f"<tool_call>\n{CALL}\n", "</tool_call>", "tool_calls"), (f"<tool_call>\n{CALL[:-6]}", "is", "stop"),
        (f"<tool_call>\n{CALL}\n</tool_call>", "", "tool_calls"),
    ],
)  # fmt: skip
def test_a_call_that_a_stop_string_ends(
    client: FlaskClient, fake: FakeEngine, text: str, stop: str, reason: str, is_streamed: bool
) -> None:
    """A stop string within arguments is the reason why the answer ended; behind them the call is."""
    fake.events = (*(Piece(text=c) for c in text), replace(finished(), stop=stop))
    reply = client.post("/v1/chat/completions", json={**BODY, "stream": is_streamed})
    choice = sse_data(reply.data)[-2]["choices"][0] if is_streamed else reply.get_json()["choices"][0]
    assert choice["finish_reason"] == reason


@pytest.mark.parametrize("n", [1, 3, 11, 20])
def test_a_forced_call_that_is_cut_off(client: FlaskClient, fake: FakeEngine, n: int) -> None:
    """Of an answer that is a call, what was begun of its marks is no content."""
    fake.events = (*(Piece(text=c) for c in f"<tool_call>\n{CALL}"[:n]), finished(reason="length"))
    choice = client.post("/v1/chat/completions", json={**BODY, "tool_choice": "required"}).get_json()["choices"][0]
    assert not choice["message"]["content"]
    assert choice["finish_reason"] == "length"


@pytest.mark.parametrize(
    ("parameters", "is_empty"),
    [
        (None, True), ({}, True), ({"type": "object", "properties": {}}, True),
        ({"type": "object", "properties": {}, "required": [], "title": "Now"}, True),
        ({"type": "object"}, False), ({"type": "object", "properties": {}, "additionalProperties": True}, False),
    ],
)  # fmt: skip
@pytest.mark.parametrize("style", [HERMES, LLAMA, MISTRAL])
def test_functions_that_take_nothing(vocab: object, style: Style, parameters: Any, is_empty: bool) -> None:
    """A function without parameters gets none, as OpenAI has it; one of any object gets any."""
    function = {"name": "now", **({} if parameters is None else {"parameters": parameters})}
    grammar = calls_gbnf(style, [function], parallel=False, forced=True)
    for arguments, is_allowed in (("{}", True), ('{"a": 1}', not is_empty)):
        text = f"{style.section[0]}{style.open[0]}now{style.named[0]}{arguments}{style.close[0]}{style.section[1]}"
        assert follows(vocab, grammar, text) is is_allowed


def test_the_template_of_tools() -> None:
    """A conversation with tools is written by the file's tool_use and read so, others by its first."""
    info = replace(
        INFO, chat_template="plain", tool_template="{% for t in tools %}{{ t.function.name }}{% endfor %}[TOOL_CALLS]"
    )
    fake = FakeEngine((Piece(text=f"[TOOL_CALLS][{CALL}]"), finished()), info=info)
    client = create_app(ServerConfig(poll_s=0.01), fake).test_client()

    reply = client.post("/v1/chat/completions", json=BODY).get_json()["choices"][0]
    client.post("/v1/chat/completions", json={**BODY, "tools": []})

    assert [fake.detokenize(request.prompt) for request in fake.requests] == ["weather[TOOL_CALLS]", "plain"]
    assert reply["message"]["tool_calls"][0]["function"]["name"] == "weather"
    props = client.get("/props").get_json()
    assert (props["chat_template"], props["chat_template_tool_use"]) == ("plain", info.tool_template)


def test_a_call_in_a_reply(client: FlaskClient, fake: FakeEngine) -> None:
    """The client gets a call with a name and arguments, in a stream too, and the reason `tool_calls`."""
    fake.events = (*(Piece(text=c) for c in f"<tool_call>\n{CALL}\n</tool_call>"), finished())
    choice = client.post("/v1/chat/completions", json=BODY).get_json()["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    assert choice["message"]["tool_calls"][0]["function"]["name"] == "weather"

    *chunks, done = sse_data(client.post("/v1/chat/completions", json={**BODY, "stream": True}).data)
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks if chunk["choices"]]
    arguments = "".join(d["tool_calls"][0]["function"]["arguments"] for d in deltas if d.get("tool_calls"))
    assert json.loads(arguments) == {"city": 'P"ar}is'}
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"
    assert done == "[DONE]"


def test_choices_as_objects(client: FlaskClient, fake: FakeEngine) -> None:
    """A type says what a word says; of a list of allowed tools, those alone may be called; what is none is named."""
    other = {"type": "function", "function": {"name": "other"}}
    allowed = {"mode": "required", "tools": [{"type": "function", "function": {"name": "other"}}]}
    body = {**BODY, "tools": [WEATHER, other]}
    for choice in (
        {"type": "auto"}, {"type": "required"}, {"type": "none"}, {"type": "allowed_tools", "allowed_tools": allowed},
        {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "other"}]},
    ):  # fmt: skip
        assert client.post("/v1/chat/completions", json={**body, "tool_choice": choice}).status_code == 200
    auto, required, none, chats, of_responses = (request.sampling.grammar for request in fake.requests)

    assert none is None
    assert auto is not None
    assert auto.lazy
    assert required is not None
    assert not required.lazy
    assert "weather" in required.text
    assert chats == of_responses
    assert chats is not None
    assert not chats.lazy
    assert "weather" not in chats.text
    for wrong in (
        {"type": "function", "function": "weather"}, {"type": "function"}, {"type": "custom"},
        {"type": "allowed_tools"}, {"type": "allowed_tools", "allowed_tools": {"mode": "some", "tools": [other]}},
        {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": ["weather"]}},
    ):  # fmt: skip
        refused = client.post("/v1/chat/completions", json={**body, "tool_choice": wrong})
        assert refused.status_code == 400
        assert refused.get_json()["error"]["param"].startswith("tool_choice")


def test_choices_of_a_call(client: FlaskClient, fake: FakeEngine) -> None:
    """`required` and a name make the answer a call from the first token on; with `auto` it holds once one begins."""
    for choice in ("auto", "required", {"type": "function", "function": {"name": "weather"}}, "none"):
        assert client.post("/v1/chat/completions", json={**BODY, "tool_choice": choice}).status_code == 200
    auto, required, named, none = (request.sampling.grammar for request in fake.requests)

    assert auto is not None
    assert auto.lazy
    assert required is not None
    assert not required.lazy
    assert named == required
    assert none is None
    assert (
        client.post("/v1/chat/completions", json={**BODY, "tool_choice": {"function": {"name": "x"}}}).status_code
        == 400
    )
    assert client.post("/v1/chat/completions", json={**BODY, "tools": [], "tool_choice": "required"}).status_code == 400


def test_how_many_calls() -> None:
    """Where the template shows several calls of an answer there may be several, unless the request says otherwise, or
    names the function; elsewhere if it asks for them.
    """
    calls = "{% for c in m.tool_calls or [] %}<tool_call>\n{{ c.function | tojson }}\n</tool_call>{% endfor %}"
    template = "{% for m in messages %}{{ m.content }}" + calls + "{% endfor %}"
    named = {"type": "function", "function": {"name": "weather"}}
    found = {}
    for several in (False, True):
        fake = FakeEngine(info=replace(INFO, chat_template=template if several else INFO.chat_template))
        client = create_app(ServerConfig(poll_s=0.01), fake).test_client()
        for more in ({}, {"parallel_tool_calls": True}, {"parallel_tool_calls": False}, {"tool_choice": named}):
            assert client.post("/v1/chat/completions", json={**BODY, **more}).status_code == 200
        grammars = [request.sampling.grammar for request in fake.requests]
        found[several] = [grammar is not None and ")*" in grammar.text.splitlines()[0] for grammar in grammars]
    assert found == {False: [False, True, False, False], True: [True, True, False, False]}


def test_a_template_without_tools_is_told_of_them(client: FlaskClient, fake: FakeEngine) -> None:
    """Where the template does not show tools, a system message does; with `none` nobody hears of them."""
    client.post("/v1/chat/completions", json=BODY)
    client.post("/v1/chat/completions", json={**BODY, "tool_choice": "none"})
    with_tools, without = ("".join(map(chr, request.prompt)) for request in fake.requests)

    assert with_tools.startswith("[system]")
    assert '"city"' in with_tools
    assert without == "[user]Paris?"
