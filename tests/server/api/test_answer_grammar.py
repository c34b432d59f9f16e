"""What answers may be that have a format: words in it, calls of tools beside it, thoughts in front, on channels too."""

import json
from dataclasses import replace
from typing import Any, Final

import pytest

from server.api.conversation.answer_grammar import answer_gbnf
from server.api.gbnf import GrammarError, check_grammar, prefixed
from server.app import create_app
from server.config import ServerConfig
from server.engine.events import Piece
from server.engine.request import GenerationRequest
from server.engine.sampling import Grammar
from tests.server.api.test_channels import ANALYSIS, CALLS, START
from tests.server.api.test_channels import TEMPLATE as CHANNELS
from tests.server.api.test_gbnf import follows
from tests.server.api.test_gbnf import vocab as vocab  # a fixture
from tests.server.fake_engine import INFO, FakeEngine, finished, sse_data

Json = dict[str, Any]
SCHEMA: Final = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
FORMAT: Final = {"type": "json_schema", "json_schema": {"name": "f", "schema": SCHEMA}}
PLACE: Final = {"type": "object", "properties": {"city": {"type": "string"}}}
TOOLS: Final = [{"type": "function", "function": {"name": "weather", "parameters": PLACE}}]
HERMES_CALL: Final = '<tool_call>\n{"name": "weather", "arguments": {"city": "x"}}\n</tool_call>'
TURNS: Final = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}{{ tools | tojson if tools }}[a]"
THINKS: Final = TURNS + "{# <think> #}"
TOLD_NOT_TO: Final = TURNS + "<think>\n\n</think>\n\n"
HEADED: Final = '<|channel|>final <|constrain|>json<|message|>{"n": 1}'


def asked(template: str, **more: Any) -> tuple[GenerationRequest, Grammar]:
    """What the engine is asked for, and its grammar."""
    fake = FakeEngine((Piece(text='{"n": 1}'), finished()), info=replace(INFO, chat_template=template))
    client = create_app(ServerConfig(poll_s=0.01), fake).test_client()
    body = {"messages": [{"role": "user", "content": "q"}], **more}
    assert client.post("/v1/chat/completions", json=body).status_code == 200
    grammar = fake.requests[-1].sampling.grammar
    assert grammar is not None
    return fake.requests[-1], grammar


def test_a_format_beside_tools(vocab: object) -> None:
    """Who sends a format and tools gets one of both: words in the format, or calls."""
    _, grammar = asked(TURNS, response_format=FORMAT, tools=TOOLS)
    assert not grammar.lazy
    for text, is_allowed in (
        ('{"n": 1}', True), (HERMES_CALL, True), ('{"m": 1}', False), ("words", False),
        (HERMES_CALL.replace("weather", "other"), False), (HERMES_CALL + '{"n": 1}', False),
    ):  # fmt: skip
        assert follows(vocab, grammar.text, text) is is_allowed, text


@pytest.mark.parametrize("more", [{"response_format": FORMAT}, {"tools": TOOLS, "tool_choice": "required"}])
def test_thoughts_in_front_of_a_format(vocab: object, more: Json) -> None:
    """A model that begins its thoughts by itself may do so in front of a format or a call, unless it is told not to."""
    text = '{"n": 1}' if "response_format" in more else HERMES_CALL
    request, thinking = asked(THINKS, **more)
    assert request.thoughts is not None
    for front in ("", "<think>", "<think>\n", "</think>"):
        assert follows(vocab, thinking.text, front + text)
    for template in (TURNS, TOLD_NOT_TO, THINKS + "<think>\n"):
        _, grammar = asked(template, **more)
        assert follows(vocab, grammar.text, text)
        assert not follows(vocab, grammar.text, "<think>" + text)


@pytest.mark.parametrize("form", [FORMAT, {"type": "json_object"}])
@pytest.mark.parametrize("tools", [[], TOOLS])
def test_a_format_on_channels(vocab: object, form: Json, tools: list[Json]) -> None:
    """On channels a format holds in the final one, behind free analysis, and calls may be made instead of it."""
    request, grammar = asked(CHANNELS, response_format=form, tools=tools)
    assert request.thoughts is not None
    assert request.thoughts.marks == (b"<|channel|>analysis<|message|>", b"<|end|>")
    for text, is_allowed in (
        (HEADED, True), (START + HEADED, True), ("<|channel|>analysis<|message|>" + START + HEADED, True),
        (HEADED.replace(" <|constrain|>json", ""), True), ('{"n": 1}', False), (HEADED[:-9] + "words", False),
        (CALLS[1], bool(tools)), (CALLS[1].replace("weather", "other"), False),
    ):  # fmt: skip
        assert follows(vocab, grammar.text, text) is is_allowed, text


@pytest.mark.parametrize("is_streamed", [False, True])
def test_a_format_that_is_read_from_channels(is_streamed: bool) -> None:
    """The JSON is the content, and the analysis thoughts, whole and streamed."""
    fake = FakeEngine(info=replace(INFO, chat_template=CHANNELS))
    fake.events = (*(Piece(text=c) for c in ANALYSIS + START + HEADED), finished())
    client = create_app(ServerConfig(poll_s=0.01), fake).test_client()
    body = {"messages": [{"role": "user", "content": "q"}], "response_format": FORMAT, "stream": is_streamed}
    reply = client.post("/v1/chat/completions", json=body)
    if is_streamed:
        deltas = [chunk["choices"][0]["delta"] for chunk in sse_data(reply.data)[:-1]]
        message = {key: "".join(delta.get(key) or "" for delta in deltas) for key in ("content", "reasoning_content")}
    else:
        message = reply.get_json()["choices"][0]["message"]
    assert json.loads(message["content"]) == {"n": 1}
    assert message["reasoning_content"] == "hm < |"


def test_a_format_that_goes_on_from_a_channel(vocab: object) -> None:
    """An answer that is begun goes on within the final channel, so that no header comes."""
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "So: "}]
    _, grammar = asked(CHANNELS, response_format=FORMAT, messages=messages)
    assert follows(vocab, grammar.text, '{"n": 1}')


def test_prefixed_rules(vocab: object) -> None:
    """Names of rules are prefixed wherever they stand, and what only looks like names is not."""
    text = 'root ::= a-1{1,2} [a-z] "a-1" # root\na-1 ::= "root\\"a" | "b" .'
    both = f'{prefixed(text, "x-")}\nroot ::= "(" x-root ")"'
    for said, is_allowed in (('(root"abza-1)', False), ('(root"aza-1)', True), ("(bcbdza-1)", True), ("(x)", False)):
        assert follows(vocab, both, said) is is_allowed, said
    assert prefixed("root ::= <think> x !<[5]>", "p-") == "p-root ::= <think> p-x !<[5]>"
    check_grammar(both)
    with pytest.raises(GrammarError, match="no GBNF at character 9"):
        prefixed('root ::= "a', "x-")


def test_nothing_is_added_where_nothing_stands_beside() -> None:
    """A grammar of one kind alone is llama.cpp's to read as it was written."""
    assert answer_gbnf("root ::= [a]", None) == "root ::= [a]"
    assert answer_gbnf(None, "root ::= [b]") == "root ::= [b]"
