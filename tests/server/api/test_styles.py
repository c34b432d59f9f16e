"""Ways to write calls: learned of templates, read out of answers however they are cut, held by grammars."""

import json
import random
import re
from dataclasses import replace
from typing import Any

import pytest

from server.api.conversation.call_grammar import calls_gbnf
from server.api.conversation.calls import Calls
from server.api.conversation.reading import Reader, Reading, Stage
from server.api.conversation.style import HERMES, Style
from server.api.conversation.tools import Tools
from server.api.schema import Fields
from server.app import create_app
from server.config import ServerConfig
from server.engine.events import Piece
from server.lint.rendering import conversations_of
from server.template.chat_template import ChatTemplate
from tests.server.api.test_gbnf import follows
from tests.server.api.test_gbnf import vocab as vocab  # a fixture
from tests.server.fake_engine import INFO, FakeEngine, finished

Json = dict[str, Any]
PROPERTIES = {
    "city": {"type": "string"}, "days": {"type": "integer"}, "of": {"type": "array", "items": {"type": "integer"}},
}  # fmt: skip
SCHEMAS: dict[str, Json] = {
    "weather": {"type": "object", "properties": PROPERTIES, "required": ["city"]},
    "har-vest_2.b": {"type": "object", "properties": PROPERTIES},
}
TOOLS = [{"type": "function", "function": {"name": name, "parameters": schema}} for name, schema in SCHEMAS.items()]
CALLS: dict[str, list[tuple[str, Json]]] = {
    "one": [("weather", {"city": "Lisbon"})],
    "two": [("weather", {"city": 'São "P" </b> {x}', "days": 3}), ("har-vest_2.b", {"city": "42"})],
    "lines": [("weather", {"city": "a\nb\\n\n<i>", "of": [1, 2]})],
}
IN_WORDS = {"NAME": "{{ f.name }}", "GIVEN": "{{ f.arguments | tojson }}", "ID": "{{ c.id }}", "N": "{{ loop.index0 }}"}


def looped(front: str, one: str, between: str, behind: str) -> str:
    """A template of turns whose calls are written so, with words of these in capitals."""
    for word, value in IN_WORDS.items():
        one = re.sub(rf"\b{word}\b", value, one)
    calls = (
        f"{front}{{% for c in m.tool_calls %}}{{% set f = c.function %}}{one}"
        f"{{% if not loop.last %}}{between}{{% endif %}}{{% endfor %}}{behind}"
    )
    return (
        "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% if m.tool_calls %}"
        f"{calls}{{% endif %}}[end]"
        "{% endfor %}{% if tools %}{{ tools | tojson }}{% endif %}{% if add_generation_prompt %}[assistant]{% endif %}"
    )


def tagged(key: str, value: str, end: str) -> str:
    """Arguments with tags around each."""
    text = "{{ v if v is string else v | tojson }}"
    return f"{{% for k, v in f.arguments.items() %}}{key}{{{{ k }}}}{value}{text}{end}{{% endfor %}}"


OWN = (
    "{% macro own(v) %}{% if v is mapping %}{% for k, x in v.items() %}]<]x[>[<{{ k }}>{{ own(x) }}]<]x[>[</{{ k }}>"
    "{% endfor %}{% elif v is iterable and v is not string %}{% for x in v %}]<]x[>[<item>{{ own(x) }}]<]x[>[</item>"
    "{% endfor %}{% else %}{{ v if v is string else v | tojson }}{% endif %}{% endmacro %}"
)
GEMMA = (
    "{% macro w(v) %}{% if v is string %}<|\"|>{{ v }}<|\"|>{% elif v is mapping %}{{ '{' }}"
    "{% for k, x in v | dictsort %}{{ k }}:{{ w(x) }}{% if not loop.last %},{% endif %}{% endfor %}{{ '}' }}"
    "{% else %}{{ v | tojson }}{% endif %}{% endmacro %}"
)
PYTHON = (
    "NAME({% for k, v in f.arguments.items() %}{{ k }}={{ v | tojson }}{% if not loop.last %}, {% endif %}{% endfor %})"
)
IS_TEXT = "\" string=\"{{ 'true' if v is string else 'false' }}\">"
TEMPLATES = {
    "objects in tags": looped("", '<call>\n{"name": "NAME", "arguments": GIVEN}\n</call>', "\n", ""),
    "a list, with ids": looped("[CALLS][", '{"name": "NAME", "arguments": GIVEN, "id": "ID"}', ", ", "]"),
    "a list in tags": looped("<calls>[", '{"id": "N", "tool_name": "NAME", "parameters": GIVEN}', ",\n", "]</calls>"),
    "objects by name": looped("<|calls|>[", '{"NAME": GIVEN}', ", ", "]<|end|>"),
    "lines in tags": looped("<calls>\n", '{"name": "NAME", "arguments": GIVEN}\n', "", "</calls>"),
    "a name in a tag": looped("", "<function=NAME>GIVEN</function>", "", ""),
    "names and numbers": looped("<|calls|>", "<|call|>functions.NAME:N<|arguments|>GIVEN<|end|>", "", "<|calls_end|>"),
    "names, no ends": looped("", "[CALL]NAME[AS]ID[ARGS]GIVEN", "", ""),
    "fenced": looped("<begin>", "<call>function<sep>NAME\n```json\nGIVEN\n```<call_end>", "\n", "<end>"),
    "tags on lines": looped(
        "",
        f"<call>\n<function=NAME>\n{tagged('<parameter=', '>' + chr(10), chr(10) + '</parameter>' + chr(10))}"
        "</function>\n</call>",
        "\n",
        "",
    ),
    "tags, tight": looped("", f"<call>NAME{tagged('<key>', '</key><value>', '</value>')}</call>", "", ""),
    "tags with types": looped(
        "<|X|calls>\n",
        '<|X|invoke name="NAME">\n' + tagged('<|X|parameter name="', IS_TEXT, "</|X|parameter>\n") + "</|X|invoke>",
        "\n",
        "\n</|X|calls>",
    ),
    "tags of their own": OWN
    + looped(
        "]<]x[>[<calls>\n",
        ']<]x[>[<invoke name="NAME">{{ own(f.arguments) }}]<]x[>[</invoke>\n',
        "",
        "]<]x[>[</calls>",
    ),
    "braces": GEMMA + looped("", "<|call>call:NAME{{ w(f.arguments) }}<call|>", "", ""),
    "keywords": looped("<|calls|>[", PYTHON, ", ", "]<|end|>"),
}


def made(name: str) -> tuple[ChatTemplate, Style]:
    """A template, and how it writes calls."""
    template = ChatTemplate.of(replace(INFO, chat_template=TEMPLATES[name]))
    style = conversations_of(template).capabilities(with_tools=True)[1].calls
    assert style is not None
    return template, style


def written(template: ChatTemplate, calls: list[tuple[str, Json]]) -> str:
    """What the template writes of calls."""
    listed = [
        {"id": f"call0000{i}", "type": "function", "function": {"name": name, "arguments": arguments}}
        for i, (name, arguments) in enumerate(calls)
    ]
    answer = {"role": "assistant", "content": "", "tool_calls": listed}
    text = template.render([answer], {"add_generation_prompt": False})
    return text.removeprefix("[assistant]").removesuffix("[end]")


def read(reader: Calls | Reader, text: str, seed: int) -> tuple[str, str, list[tuple[str, str]]]:
    """Words, thoughts and calls by deltas, which the whole answer's are, whatever pieces the text comes in."""
    cuts, deltas, at = random.Random(seed), list[Json](), 0
    while at < len(text):
        n = cuts.randint(1, 6) if seed else len(text)
        deltas += reader.feed(text[at : at + n])
        at += n
    deltas += reader.close()
    said, thought = ("".join(delta.get(key) or "" for delta in deltas) for key in ("content", "reasoning_content"))
    calls = list[list[str]]()
    for call in (call for delta in deltas for call in delta.get("tool_calls", ())):
        if "name" in call["function"]:
            calls.append([call["function"]["name"], ""])
        assert call["index"] == len(calls) - 1
        calls[-1][1] += call["function"]["arguments"]
    assert said == reader.content
    assert calls == [[call["function"]["name"], call["function"]["arguments"]] for call in reader.calls]
    return said, thought, [(name, arguments) for name, arguments in calls]


@pytest.mark.parametrize("calls", CALLS)
@pytest.mark.parametrize("name", TEMPLATES)
def test_calls_as_templates_write_them(vocab: object, name: str, calls: str) -> None:
    """What a template writes of calls is read as these calls, behind words too, and its grammar allows it."""
    template, style = made(name)
    text = written(template, CALLS[calls])
    for seed in range(5):
        for front in ("", "So:\n"):
            said, _, found = read(Calls(style, SCHEMAS), front + text, seed)
            assert said == front
            assert [(called, json.loads(arguments)) for called, arguments in found] == CALLS[calls]
    tools = Tools(listed=tuple(TOOLS), callable=tuple(TOOLS), forced=True, parallel=True, style=style)
    grammar = tools.gbnf(alone=True)
    assert follows(vocab, grammar, text.strip())
    assert not follows(vocab, grammar, text.strip().replace("weather", "whether"))


@pytest.mark.parametrize("name", TEMPLATES)
def test_calls_that_are_cut_off(name: str) -> None:
    """Wherever an answer ends, the call's name is told whole or not at all, and nothing of it is content."""
    template, style = made(name)
    text = written(template, CALLS["one"])
    for end in range(len(style.begins[0]), len(text)):
        for seed in (0, 1):
            said, _, found = read(Calls(style, SCHEMAS), text[:end], seed)
            assert said == ""
            assert [called for called, _ in found] in ([], ["weather"])
            if found and style.notation != "python":
                assert '{"city":"Lisbon"}'.startswith(found[0][1].replace(" ", ""))


@pytest.mark.parametrize("name", TEMPLATES)
def test_words_that_are_no_calls(name: str) -> None:
    """Marks in words stay there, and the call behind them is read."""
    template, style = made(name)
    words = f"As {style.begins[0]} says, 1 < 2 {{and}} [so] on: "
    said, _, found = read(Calls(style, SCHEMAS), words, 1)
    assert (said, found) == (words, [])
    said, _, found = read(Calls(style, SCHEMAS), words + written(template, CALLS["one"]), 1)
    assert (said, [called for called, _ in found]) == (words, ["weather"])


@pytest.mark.parametrize(
    ("style", "text", "calls"),
    [
        (HERMES, '<tool_call>{"arguments": {"a": 1}, "name": "f"}</tool_call>', [("f", '{"a": 1}')]),
        (HERMES, '<tool_call>{"name": "f", "arguments": "{\\"a\\": 1}"}</tool_call>', [("f", '{"a": 1}')]),
        (HERMES, '<tool_call>{"name": "f"}</tool_call>', [("f", "{}")]),
        (HERMES, '<tool_call>{"name": "f", "arguments": {"a": "\\u00e9}\\""}}', [("f", '{"a": "\\u00e9}\\""}')]),
        (
            HERMES,
            '<tool_call>{"type": "function", "function": {"name": "f", "parameters": {"a": 1}}}</tool_call>',
            [("f", '{"a": 1}')],
        ),
        (
            "tags on lines",
            "<function=weather>\n<parameter=city>\nx\n</parameter>\n</function>\n</call>",
            [("weather", '{"city":"x"}')],
        ),
        (
            "tags on lines",
            "<call>\n<function=weather>\n<parameter=city>x</parameter>\n</function>\n</call>",
            [("weather", '{"city":"x"}')],
        ),
        ("tags on lines", "<call>\n<function=weather>\n</function>\n</call>", [("weather", "{}")]),
        (
            "tags on lines",
            "<call>\n<function=weather>\n<parameter=days>\nsome\n</parameter>\n</function>\n</call>",
            [("weather", '{"days":"some"}')],
        ),
        ("names and numbers", '<|call|>functions.f:0<|arguments|>{"a": 1}<|end|>', [("f", '{"a": 1}')]),
        ("names, no ends", '[CALL]f[ARGS]{"a": 1}', [("f", '{"a": 1}')]),
        (
            "keywords",
            "<|calls|>[f(a=[true, None], b={'c': -1})]<|end|>",
            [("f", '{"a": [true, null], "b": {"c": -1}}')],
        ),
        ("keywords", "<|calls|>[weather('x\ny')]<|end|>", [("weather", '{"city": "x\\ny"}')]),
        ("keywords", "<|calls|>[f(a=b.c())]<|end|>", [("f", "a=b.c()")]),
        (
            "braces",
            '<|call>call:f{a:{b:[<|"|>c,{<|"|>,true,null]},d:1.5}<call|>',
            [("f", '{"a":{"b":["c,{",true,null]},"d":1.5}')],
        ),
    ],
)
def test_calls_as_models_write_them(style: Style | str, text: str, calls: list[tuple[str, str]]) -> None:
    """Models write otherwise than templates: other orders and names of keys, arguments as text, marks left away."""
    known = made(style)[1] if isinstance(style, str) else style
    for seed in range(4):
        assert read(Calls(known, SCHEMAS), text, seed) == ("", "", calls)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("stage", "text", "thought", "said", "n_calls"),
    [
        ("undecided", "[THINK]hm < [/TH[/THINK]Yes", "hm < [/TH", "Yes", 0),
        ("undecided", "[THINK]hm", "hm", "", 0),
        ("undecided", "[THI", "", "[THI", 0),
        ("undecided", "[/THINK]\nYes", "", "Yes", 0),
        ("undecided", "[/THINK]<function=weather>{}</function>", "", "", 1),
        ("thinking", "hm[/THINK]\n\n<function=weather>{}</function>", "hm", "", 1),
        ("thinking", "hm <function=weather>{}</function>", "hm ", "", 1),
        ("thinking", "hm <function", "hm <function", "", 0),
    ],
)
def test_thoughts_between_other_marks(
    stage: Stage, text: str, thought: str, said: str, n_calls: int, seed: int
) -> None:
    """Thoughts stand between the model's own marks, and end at a call, where its model calls while it thinks."""
    style = replace(made("a name in a tag")[1], ends_thoughts=True)
    reading = Reading(style=style, stage=stage, tools=SCHEMAS, marks=("[THINK]", "[/THINK]"))
    assert read(reading, text, seed)[:2] == (said, thought)
    assert len(reading.calls) == n_calls
    assert reading.reasoning == thought


NESTED: Json = {
    "type": "object",
    "properties": {
        "of": {"type": "object", "properties": {"a": {"type": "string"}, "n": {"type": "integer"}}, "required": ["a"]},
        "all": {"type": "array", "items": {"type": "array", "items": {"$ref": "#/$defs/N"}}},
        "any": {"anyOf": [{"type": "integer"}, {"type": "array", "items": {"type": "integer"}}]},
    },
    "$defs": {"N": {"type": "object", "properties": {"of": {"type": "string"}}}},
}


@pytest.mark.parametrize(
    "arguments",
    [
        {"of": {"a": "x </a> ]<]x", "n": 3}}, {"of": {"a": "7"}, "all": [[{"of": "2"}, {}], []], "any": 3},
        {"any": [1, 2]}, {"all": []},
    ],
)  # fmt: skip
def test_members_in_tags_of_their_own(vocab: object, arguments: Json) -> None:
    """Objects and arrays within arguments stand in tags, too: they are read back, and the grammar allows them."""
    template, style = made("tags of their own")
    text = written(template, [("weather", arguments)])
    grammar = calls_gbnf(style, [{"name": "weather", "parameters": NESTED}], parallel=False, forced=True)
    assert follows(vocab, grammar, text)
    for seed in range(5):
        _, _, found = read(Calls(style, {"weather": NESTED}), text, seed)
        assert [(name, json.loads(told)) for name, told in found] == [("weather", arguments)]


def test_what_is_read_is_shown() -> None:
    """The text of control tokens is shown where calls and thoughts are told by it, and of no others."""
    fake = FakeEngine((Piece(text="Yes"), finished()), info=replace(INFO, chat_template=TEMPLATES["names, no ends"]))
    client = create_app(ServerConfig(poll_s=0.01), fake).test_client()
    body = {"messages": [{"role": "user", "content": "q"}]}
    for more in ({}, {"tools": TOOLS}):
        assert client.post("/v1/chat/completions", json={**body, **more}).status_code == 200
    plain, calling = (request.shown for request in fake.requests)

    assert set(map(ord, "[CALL]")) <= calling
    assert not set(map(ord, "[CALL]")) <= plain


def test_a_template_of_lists_that_filters_make() -> None:
    """What `map` leaves is written as the list that it is, as llama.cpp's templates do."""
    template = ChatTemplate.of(replace(INFO, chat_template="{{ tools | map(attribute='function') | tojson }}"))
    text = template.render([], {"tools": [{"function": {"name": "f"}}]})
    assert json.loads(text) == [{"name": "f"}]


def test_what_a_model_without_tools_is_told() -> None:
    """Where a template shows calls and no tools, the model is told to write calls in the way that they are read."""
    template = TEMPLATES["fenced"].replace("{% if tools %}{{ tools | tojson }}{% endif %}", "")
    conversation = conversations_of(ChatTemplate.of(replace(INFO, chat_template=template))).read(
        Fields({"messages": [{"role": "user", "content": "q"}], "tools": TOOLS})
    )
    assert "<begin><call>function<sep>...\n```json\n{...}\n```<call_end><end>" in conversation.text
    assert HERMES.example == '<tool_call>\n{"name": "...", "arguments": {...}}\n</tool_call>'
    examples = {name: made(name)[1].example for name in ("tags, tight", "keywords", "names and numbers")}
    assert examples == {
        "tags, tight": "<call>...<key>...</key><value>...</value></call>",
        "keywords": "<|calls|>[...(...=...)]<|end|>",
        "names and numbers": "<|calls|><|call|>functions....:0<|arguments|>{...}<|end|><|calls_end|>",
    }


def test_a_bare_name_is_no_mark() -> None:
    """A template whose calls nothing tells from words has no style of its own."""
    template = ChatTemplate.of(replace(INFO, chat_template=looped("", PYTHON, ", ", "")))
    assert conversations_of(template).capabilities(with_tools=True)[1].calls is None


@pytest.mark.parametrize("name", ["objects in tags", "tags on lines", "braces", "keywords"])
def test_long_arguments(name: str) -> None:
    """What was told is not held: arguments of 400,000 characters are read in the time that their pieces take."""
    template, style = made(name)
    text = written(template, [("weather", {"city": "x" * 400_000})])
    calls = Calls(style, SCHEMAS)
    longest = 0
    for at in range(0, len(text), 100):
        calls.feed(text[at : at + 100])
        longest = max(longest, len(calls._in.text))
    calls.close()
    assert json.loads(calls.calls[0]["function"]["arguments"]) == {"city": "x" * 400_000}
    assert longest < 1000
