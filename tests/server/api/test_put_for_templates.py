"""How conversations are put for templates: parts, thoughts, calls and what came of them, answers that are begun.

The templates have the traits of published ones; what they are to be given is what llama-server gave those
(`python -m scripts.check_templates`).
"""

from dataclasses import replace
from typing import Any

import pytest

from server.api.conversation.capabilities import Around
from server.api.conversation.probing import probe
from server.api.errors import ApiError
from server.api.schema import Fields
from server.lint.rendering import conversations_of
from server.template.chat_template import ChatTemplate
from tests.server.fake_engine import INFO

Json = dict[str, Any]
LOOP = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
EACH = (
    "{% for m in messages %}[{{ m.role }}]{% if m.content is string %}{{ m.content }}"
    "{% else %}{% for p in m.content %}<{{ p.text }}>{% endfor %}{% endif %}{% endfor %}"
)
USERS_ALONE = EACH.replace("if m.content is string", "if m.content is string or m.role != 'user'")
FIRST = EACH.replace("{% for p in m.content %}<{{ p.text }}>{% endfor %}", "{{ m.content[0].text }}")
NOT_EMPTY = EACH.replace("{% else %}", "{% elif m.content | length > 0 %}")
ASKS = "{% if add_generation_prompt %}[assistant]{% endif %}"
PARTS = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
Q: Json = {"role": "user", "content": "Q"}
CALL: Json = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"n": 1}'}}
RESULT: Json = {"role": "tool", "content": '{"sun": true}', "tool_call_id": "1"}


def put(template: str, *messages: Json, **more: object) -> str:
    """The text of a conversation."""
    made = ChatTemplate.of(replace(INFO, chat_template=template, adds_bos=False))
    return conversations_of(made).read(Fields({"messages": list(messages), **more})).text


@pytest.mark.parametrize(
    ("template", "role", "text"),
    [
        (LOOP, "user", "one\ntwo"),
        (EACH, "user", "<one><two>"),
        (EACH, "system", "<one><two>"),
        (USERS_ALONE, "user", "<one><two>"),
        (USERS_ALONE, "system", "one\ntwo"),
        (FIRST, "user", "one\ntwo"),
        (NOT_EMPTY, "user", "one\ntwo"),
    ],
)
def test_parts(template: str, role: str, text: str) -> None:
    """Parts are handed on to whoever shows all of them and looks for some, and are else a text of lines."""
    assert f"[{role}]{text}[user]" in put(template, {"role": role, "content": PARTS}, Q)


BESIDE = "{% for m in messages %}[{{ m.role }}]{% if m.KEY %}<{{ m.KEY }}>{% endif %}{{ m.content }}{% endfor %}"
BLOCKS = (
    "{% for m in messages %}[{{ m.role }}]{% if m.content is string %}{{ m.content }}{% else %}{% for p in m.content %}"
    "{% if p.type == 'thinking' %}<{{ p.thinking }}>{% else %}{{ p.text }}{% endif %}{% endfor %}{% endif %}"
    "{% endfor %}"
)


@pytest.mark.parametrize(
    "template", [BESIDE.replace("KEY", "reasoning_content"), BESIDE.replace("KEY", "thinking"), BLOCKS]
)
def test_thoughts_of_earlier_answers(template: str) -> None:
    """They are put where the template looks for them, whatever it calls them."""
    answer = {"role": "assistant", "content": "A", "reasoning_content": "hm"}
    assert put(template, Q, answer, Q) == "[user]Q[assistant]<hm>A[user]Q"


def test_calls_without_words() -> None:
    """Where a template refuses thoughts and words beside a call, the words are left out."""
    template = (
        "{% for m in messages %}{% if m.tool_calls and m.thinking and m.content %}{{ raise_exception('') }}{% endif %}"
        "[{{ m.role }}]{{ m.thinking }}{{ m.content }}{% for c in m.tool_calls %}{{ c.function.name }}{% endfor %}"
        "{% endfor %}"
    )
    call = {"role": "assistant", "content": "A", "reasoning_content": "hm", "tool_calls": [CALL]}
    assert put(template, Q, call, RESULT).startswith("[user]Q[assistant]hmf[tool]")


def test_what_came_of_calls() -> None:
    """A template that has it in the message of the call gets it there, JSON as what it is, and later words with it."""
    template = (
        "{% for m in messages %}[{{ m.role }}]{% for c in m.tool_calls %}({{ c.function.name }}){% endfor %}"
        "{% for r in m.tool_responses %}({{ r.name }}: {{ r.response.sun or r.response }}){% endfor %}{{ m.content }}"
        "{% endfor %}"
    )
    call = {"role": "assistant", "content": "", "tool_calls": [CALL]}
    assert put(template, Q, call, RESULT, {"role": "assistant", "content": "A"}, Q) == (
        "[user]Q[assistant](f)(f: True)A[user]Q"
    )


def test_arguments_as_text() -> None:
    """A template that can join a call's arguments to a text alone gets them as one, however they were given."""
    template = (
        LOOP
        + "{% for m in messages %}{% for c in m.tool_calls %}{{ 'f:' + c.function.arguments }}{% endfor %}{% endfor %}"
    )
    for arguments in ({"n": [1, "ü"]}, '{"n":[1,"ü"]}'):
        call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": arguments}}
        assert put(template, Q, {"role": "assistant", "content": "", "tool_calls": [call]}, RESULT).endswith(
            'f:{"n":[1,"ü"]}'
        )


def test_tools_are_whole() -> None:
    """Templates get a tool's name, description and parameters, each of them there, and nothing else."""
    template = "{% for t in tools %}{{ t | tojson }}{% endfor %}" + LOOP
    tools = [{"type": "function", "function": {"name": "f", "strict": True}}]
    assert put(template, Q, tools=tools).startswith(
        '{"type": "function", "function": {"name": "f", "description": "", "parameters": {}}}'
    )


def test_tools_that_take_nothing() -> None:
    """A template that looks for properties gets none of a tool without parameters; others see no schema."""
    tools = [{"type": "function", "function": {"name": "now"}}]
    one = "{% for t in tools or [] %}{{ t.function.name }}{{ t.function.parameters }}{% endfor %}" + LOOP
    looks = one.replace("parameters", "parameters.properties.items() | list")
    assert put(looks, Q, tools=tools) == "now[][user]Q"
    assert put(one, Q, tools=tools) == "now{}[user]Q"


def test_an_answer_is_asked_for() -> None:
    """Where a template ends a turn behind a tool's result and begins none, the model's is begun as it is elsewhere."""
    template = (
        "{% for m in messages %}{% if m.role == 'tool' %}({{ m.content }})words<end>{% else %}[{{ m.role }}]"
        "{{ m.content }}{% if not m.tool_calls %}<end>{% endif %}{% endif %}{% endfor %}"
        "{% if add_generation_prompt and messages[-1].role != 'tool' %}[assistant]{% endif %}"
    )
    call = {"role": "assistant", "content": "", "tool_calls": [CALL]}
    assert put(template, Q, call, RESULT).endswith("words<end>[assistant]")


THINKS = (
    "{% for m in messages %}[{{ m.role }}]{% if m.reasoning_content %}<think>\n{{ m.reasoning_content }}\n</think>\n\n"
    "{% endif %}{{ m.content }}{% endfor %}{% if add_generation_prompt %}[assistant]"
    "{% if enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
CHANNELS = (
    "{% for m in messages %}[{{ m.role }}]{% if m.role == 'assistant' %}{% if m.thinking %}to=self<|m|>{{ m.thinking }}"
    "<|e|>[assistant]{% endif %}to=user<|m|>{% endif %}{{ m.content }}{% endfor %}" + ASKS
)
DROPS = (
    "{% for m in messages %}[{{ m.role }}]{{ m.content.split('</think>')[-1] }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]<think>\n{% endif %}"
)
OFF = LOOP + ASKS + "{% if add_generation_prompt and enable_thinking is false %}<think>\n\n</think>\n{% endif %}"

ENDS = (
    "{% for m in messages %}[{{ m.role }}]{% if m.role == 'assistant' %}{% if m.reasoning_content %}<think>"
    "{{ m.reasoning_content }}{% endif %}</think>{% endif %}{{ m.content }}{% endfor %}{% if add_generation_prompt %}"
    "[assistant]{{ '</think>' if enable_thinking is false else '<think>' }}{% endif %}"
)
ALWAYS = (
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}[assistant]<think>\n"
    "{% if enable_thinking is false %}\n</think>\n{% endif %}"
)


@pytest.mark.parametrize(
    ("template", "around"),
    [
        (LOOP + ASKS, Around()),
        (THINKS, Around("<think>\n", "\n</think>\n\n")),
        (CHANNELS, Around("to=self<|m|>", "<|e|>[assistant]to=user<|m|>")),
        (DROPS, Around("<think>", "</think>")),
        (OFF, Around("<think>", "</think>")),
    ],
)
def test_what_stands_around_thoughts(template: str, around: Around) -> None:
    """It is found in what the template writes: of thoughts, or in what it asks with where it writes none."""
    made = ChatTemplate.of(replace(INFO, chat_template=template, adds_bos=False))
    assert probe(made.attempt).around == around


@pytest.mark.parametrize(
    ("template", "answer", "text"),
    [
        (LOOP + ASKS, {"content": "It"}, "[assistant]It"),
        (LOOP + ASKS, {"content": PARTS}, "[assistant]one\n\ntwo"),
        (THINKS, {"content": "It"}, "[assistant]<think>\n\n</think>\n\nIt"),
        (THINKS, {"content": "It", "reasoning_content": "hm"}, "[assistant]<think>\nhm\n</think>\n\nIt"),
        (THINKS, {"content": "", "reasoning_content": "hm"}, "[assistant]<think>\nhm"),
        (CHANNELS, {"content": "It"}, "[assistant]to=self<|m|><|e|>[assistant]to=user<|m|>It"),
        (DROPS, {"content": "It"}, "[assistant]<think></think>It"),
        (DROPS, {"content": "<think>hm</think>It"}, "[assistant]<think>hm</think>It"),
    ],
)
@pytest.mark.parametrize("thinks", [True, False])
def test_answers_that_are_begun(template: str, answer: Json, text: str, *, thinks: bool) -> None:
    """They stand behind their thoughts, empty ones if they have none, whether the model is asked to think or not."""
    kwargs = {"enable_thinking": thinks}
    assert put(template, Q, {"role": "assistant", **answer}, chat_template_kwargs=kwargs) == f"[user]Q{text}"


@pytest.mark.parametrize(
    ("template", "thinks", "answer", "text"),
    [
        (OFF, True, {"content": "It"}, "[assistant]<think></think>It"),
        (OFF, False, {"content": "It"}, "[assistant]<think>\n\n</think>\nIt"),
        (ENDS, True, {"content": "It"}, "[assistant]</think>It"),
        (ENDS, False, {"content": "It"}, "[assistant]</think>It"),
        (ENDS, True, {"content": "It", "reasoning_content": "hm"}, "[assistant]<think>hm</think>It"),
        (ENDS, False, {"content": "It", "reasoning_content": "hm"}, "[assistant]<think>hm</think>It"),
        (ALWAYS, True, {"content": "It"}, "[assistant]<think></think>It"),
        (ALWAYS, True, {"content": "", "reasoning_content": "hm"}, "[assistant]<think>\nhm"),
        (ALWAYS, False, {"content": "It"}, "[assistant]<think>\n</think>\nIt"),
        (DROPS, True, {"content": "It", "reasoning_content": "hm"}, "[assistant]<think>\nhm</think>It"),
    ],
)
def test_thoughts_are_neither_begun_nor_ended_twice(template: str, answer: Json, text: str, *, thinks: bool) -> None:
    """Where the template has ended them, or ends what it has not begun, or has begun them anyway, that is all."""
    kwargs = {"enable_thinking": thinks}
    assert put(template, Q, {"role": "assistant", **answer}, chat_template_kwargs=kwargs) == f"[user]Q{text}"


def test_who_is_told_to_think() -> None:
    """A template that asks whether to is told to think if it writes thoughts, and else not: nobody would read them."""
    asks = "{{ enable_thinking }}"
    assert put(THINKS + asks, Q).endswith("True")
    assert put(LOOP + ASKS + asks, Q).endswith("False")


def test_whether_words_or_thoughts_are_gone_on_with() -> None:
    """`continue_final_message` says which; any other word is refused by name."""
    answer = {"role": "assistant", "content": "It", "reasoning_content": "hm"}
    assert put(THINKS, Q, answer, continue_final_message="content").endswith("hm\n</think>\n\nIt")
    assert put(THINKS, Q, answer, continue_final_message="reasoning_content").endswith("<think>\nhm")
    with pytest.raises(ApiError, match="expected true, false, content or reasoning_content"):
        put(THINKS, Q, answer, continue_final_message="thoughts")


def test_thoughts_that_are_begun_are_gone_on_with() -> None:
    """Behind thoughts without words the model thinks on, and what it says is read so."""
    made = ChatTemplate.of(replace(INFO, chat_template=THINKS, adds_bos=False))
    answer = {"role": "assistant", "content": "", "reasoning_content": "hm"}
    reading = conversations_of(made).read(Fields({"messages": [Q, answer]})).reading()
    reading.feed(" so\n</think>\n\nIt")
    reading.close()

    assert (reading.reasoning.strip(), reading.content) == ("so", "It")
