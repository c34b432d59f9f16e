"""Answers that are messages to somebody: who they are for is learned of templates, and read however they are cut."""

import json
import re
from dataclasses import replace
from typing import Any, Final

import pytest

from server.api.conversation.conversations import Conversation
from server.api.schema import Fields
from server.engine.sampling import Grammar
from server.lint.rendering import conversations_of
from server.template.chat_template import ChatTemplate
from tests.server.api.test_gbnf import follows
from tests.server.api.test_gbnf import vocab as vocab  # a fixture
from tests.server.api.test_styles import CALLS, TOOLS, read, tagged
from tests.server.fake_engine import INFO

Json = dict[str, Any]
FRONT: Final = (
    "{{ tools | tojson if tools }}{% for m in messages %}"
    "{% if m.role != 'assistant' %}[{{ m.role }}]{{ m.content }}{% else %}"
)
BEHIND: Final = "{% endif %}{% endfor %}{% if add_generation_prompt %}"
# A name in front of JSON; and thoughts and words to somebody, too, whose arguments stand in tags.
LINES: Final = (
    FRONT + "[assistant]>>>{% if m.content %}all\n{{ m.content }}{% if m.tool_calls %}>>>{% endif %}{% endif %}"
    "{% for c in m.tool_calls %}{{ c.function.name + '\n' + c.function.arguments }}"
    "{% if not loop.last %}>>>{% endif %}{% endfor %}[end]" + BEHIND + "[assistant]>>>{% endif %}"
)
TAGS: Final = (
    FRONT + "{% if m.reasoning_content %}<b>assistant for me<m>{{ m.reasoning_content }}<e>{% endif %}"
    "{% for c in m.tool_calls %}{% set f = c.function %}<b>assistant for {{ f.name }}<m><x:calls>\n"
    '<x:call name="{{ f.name }}">\n' + tagged('<x:value name="', '">', "</x:value>\n") + "</x:call>\n</x:calls>"
    "{% if loop.last %}<t>{% else %}<e>{% endif %}{% endfor %}"
    "{% if not m.tool_calls %}<b>assistant for you<m>{{ m.content }}<t>{% endif %}" + BEHIND + "<b>assistant{% endif %}"
)
TEMPLATES: Final = {"lines": LINES, "tags": TAGS}
WORDS: Final = {"lines": "all\n", "tags": " for you<m>"}
BETWEEN: Final = {"lines": ">>>", "tags": "<e><b>assistant"}
THOUGHT: Final = " for me<m>hm < <e<e><b>assistant"


def conversation(name: str, **more: Any) -> Conversation:
    """One of a question, with tools."""
    template = ChatTemplate.of(replace(INFO, chat_template=TEMPLATES[name]))
    return conversations_of(template).read(
        Fields({"messages": [{"role": "user", "content": "q"}], "tools": TOOLS, "parallel_tool_calls": True, **more})
    )


def written(name: str, calls: list[tuple[str, Json]]) -> str:
    """What a template writes of calls, behind what asks for an answer."""
    listed = [
        {"type": "function", "function": {"name": f, "arguments": json.dumps(given) if name == "lines" else given}}
        for f, given in calls
    ]
    answer = {"role": "assistant", "content": "", "tool_calls": listed}
    text = ChatTemplate.of(replace(INFO, chat_template=TEMPLATES[name])).render([answer], {})
    asks = conversation(name).text.rpartition("]")[2] if name == "lines" else "<b>assistant"
    text = text.removeprefix("[assistant]").removeprefix(asks)
    return text[: min(text.index(end) for end in ("[end]", "<t>", "[assistant]>>>") if end in text)]


@pytest.mark.parametrize("calls", CALLS)
@pytest.mark.parametrize("name", TEMPLATES)
def test_messages_to_functions(vocab: object, name: str, calls: str) -> None:
    """Calls are read behind thoughts and words, and held by the grammar, whether they are forced or not."""
    text = written(name, CALLS[calls])
    fronts = {"": ("", ""), WORDS[name] + "So: >>> x<e>" + BETWEEN[name]: ("So: >>> x<e>", "")}
    if name == "tags":
        fronts |= {THOUGHT: ("", "hm < <e"), THOUGHT + WORDS[name] + "So<e><b>assistant": ("So", "hm < <e")}
    for front, (said, thought) in fronts.items():
        for seed in range(6):
            found = read(conversation(name).reading(), front + text, seed)
            assert found[:2] == (said, thought)
            assert [(called, json.loads(arguments)) for called, arguments in found[2]] == CALLS[calls]
    forced = conversation(name, tool_choice="required").grammar(None)
    free = conversation(name).grammar(None)
    assert forced is not None
    assert free is not None
    assert free.lazy
    for grammar in (forced.text, free.text):
        assert follows(vocab, grammar, text)
        assert not follows(vocab, grammar, text.replace("weather", "whether"))
        assert not follows(vocab, grammar, WORDS[name] + "So")


@pytest.mark.parametrize("name", TEMPLATES)
def test_messages_to_the_user(vocab: object, name: str) -> None:
    """Words have no header, with tools or without, and a format is that of words."""
    for more in ({}, {"tools": None}):
        for text, said in ((WORDS[name] + "Leeks <x>", "Leeks <x>"), ("Leeks", "Leeks"), (WORDS[name][:-1], "")):
            for seed in range(4):
                found = read(conversation(name, **more).reading(), text, seed)
                assert found == (said or found[0], "", [])
                assert found[0] in (said, WORDS[name][:-1])
    grammar = conversation(name).grammar(Grammar(text='root ::= "yes"'))
    assert grammar is not None
    assert follows(vocab, grammar.text, WORDS[name] + "yes")
    assert follows(vocab, grammar.text, written(name, CALLS["one"]))
    assert not follows(vocab, grammar.text, "yes")


@pytest.mark.parametrize("name", TEMPLATES)
def test_messages_that_are_cut_off(name: str) -> None:
    """Wherever an answer ends, a call's name is told whole or not at all, and nothing of it is said."""
    text = WORDS[name] + "So" + BETWEEN[name] + written(name, CALLS["one"])
    begun = len(WORDS[name]) + 2 + 3
    for end in range(begun, len(text)):
        for seed in (0, 1):
            said, _, found = read(conversation(name).reading(), text[:end], seed)
            assert said == "So"
            assert [called for called, _ in found] in ([], ["weather"])


def test_a_prompt_in_python() -> None:
    """Marks in words that nobody's name follows stay there."""
    words = "So:\n>>> print(1)\n>>>weathers\nx"
    for seed in range(6):
        assert read(conversation("lines").reading(), "all\n" + words, seed) == (words, "", [])


def test_thoughts_that_stay() -> None:
    """Thoughts stay in the content with what stands around them, where they are to; begun answers go on within."""
    kept = conversation("tags", reasoning_format="none").reading()
    assert read(kept, THOUGHT + WORDS["tags"] + "So", 3)[0] == " for me<m>hm < <e<e><b>assistantSo"
    answer = {"role": "assistant", "content": "Le"}
    begun = conversation("tags", messages=[{"role": "user", "content": "q"}, answer])
    assert begun.text.endswith(" for you<m>Le")
    assert read(begun.reading(), "eks", 2) == ("eks", "", [])
    answer = {"role": "assistant", "content": "", "reasoning_content": "h"}
    begun = conversation("tags", messages=[{"role": "user", "content": "q"}, answer])
    assert read(begun.reading(), "m<e><b>assistant for you<m>So", 2) == ("So", "m", [])


@pytest.mark.parametrize(
    ("name", "text", "is_begun"),
    [
        ("lines", 'weather\n{"city"', True), ("lines", 'all\nSo>>>weather\n{"', True), ("lines", "all\nSo", False),
        ("lines", "all\nweather\n", False), ("tags", " for weather<m><x", True), ("tags", " for you<m> for me", False),
        ("tags", THOUGHT + " for weather<m>", True), ("tags", THOUGHT + " for you<m>x", False),
    ],
)  # fmt: skip
def test_where_grammars_of_calls_begin(name: str, text: str, is_begun: bool) -> None:
    """The grammar begins with the header of a message to a function, and with no other."""
    grammar = conversation(name).grammar(None)
    assert grammar is not None
    found = re.fullmatch(grammar.trigger_patterns[0], text)
    assert (found is not None) is is_begun
    if found is not None:
        assert found[1].lstrip().startswith(("weather", "for weather"))
