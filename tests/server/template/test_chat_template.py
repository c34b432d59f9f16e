"""What text a conversation becomes."""

import json
import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

import pytest

from server.template.chat_template import ChatTemplate, ChatTemplateError
from server.template.chatml import CHATML_STOP
from tests.server.fake_engine import INFO

USER = {"role": "user", "content": "<a> & b"}


def render(template: str, *messages: Mapping[str, object], adds_bos: bool = True, **variables: object) -> str:
    info = replace(INFO, chat_template=template, adds_bos=adds_bos)
    return ChatTemplate.of(info).render(list(messages or (USER,)), variables)


def test_names_that_templates_use() -> None:
    """The special tokens, the generation prompt, today's date and the caller's own names are there."""
    template = "{{ messages[0].content }}|{{ eos_token }}|{{ add_generation_prompt }}|{{ thinking }}"

    assert render(template, thinking=False) == "<a> & b|</s>|True|False"
    today = datetime.now()
    assert render("{{ date_string }}|{{ datetime }}") == f"{today:%d %b %Y}|{today:%b %d %Y}"


def test_names_that_llama_server_leaves_undefined() -> None:
    """Without tools and documents these names are undefined, not None, and so is a generation prompt not wanted.

    Source: llama.cpp 0c1e570 common/chat.cpp, common_chat_template_direct_apply_impl.
    """
    template = "{{ tools is defined }}|{{ documents is defined }}|{{ add_generation_prompt is defined }}"

    assert render(template) == "False|False|True"
    assert render(template, add_generation_prompt=False, tools=[{}]) == "True|False|False"


def test_what_a_template_made_it_may_change() -> None:
    """Lists and dicts of the template's own grow by append, extend and update."""
    source = (
        "{% set a = [] %}{% set d = {} %}{% for m in messages %}{% set _ = a.append(m) %}{% endfor %}"
        "{% set _ = a.extend([1]) %}{% set _ = d.update({'n': a|length}) %}{{ d|tojson }}"
    )

    assert render(source, USER, USER) == '{"n": 3}'


ENDLESS = (
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "{% set a = [1] %}{% for b in a %}{% set _ = a.append(b) %}{% endfor %}",
    "{% macro f(n) %}{{ f(n - 1) ~ f(n - 1) if n else '' }}{% endmacro %}{{ f(99) }}",
    "{{ range(99999)|map('string')|map('list')|map('join')|map('list')|list|length }}",
)


@pytest.mark.parametrize("source", ENDLESS)
def test_a_template_without_end(source: str) -> None:
    """Loops, macros and filters that go on and on end with an error when the time is over."""
    template = replace(ChatTemplate.of(replace(INFO, chat_template=source)), limit_s=0.05)

    began = time.thread_time()
    with pytest.raises(ChatTemplateError, match="goes on for too long"):
        template.render([USER])
    assert time.thread_time() - began < 1.0
    assert template.attempt([USER], {}) is None


@pytest.mark.parametrize(
    "source",
    [
        "{{ 'a' * 10 ** 9 }}", "{{ 'a'|center(10 ** 9) }}", "{{ 'a'.ljust(10 ** 9) }}", "{{ '%999999999d' % 1 }}",
        "{{ 2 ** 99999 }}", "{{ ((2 ** 3000) * (2 ** 3000)) }}", "{{ messages|tojson(indent=10 ** 9) }}",
        "{% set n = namespace(a='a') %}{% for i in range(64) %}{% set n.a = n.a ~ n.a %}{% endfor %}",
        "{% set n = namespace(a='a') %}{% for i in range(64) %}{% set n.a = n.a + n.a %}{% endfor %}",
        "{% set a = [1] %}{% for i in range(64) %}{% set _ = a.extend(a) %}{% endfor %}",
        "{% for i in range(9999) %}{{ 'a' * 99999 }}{% endfor %}",
    ],
)  # fmt: skip
def test_a_template_that_makes_too_much(source: str) -> None:
    """What would not fit into memory, or takes one step without end, is refused before it is made."""
    with pytest.raises(ChatTemplateError, match=r"template (makes|asks|formats)"):
        render(source)


def test_the_template_of_tools() -> None:
    """A file's tool_use is for conversations with tools, stands in for one that is missing, and is left if invalid.

    Source: llama.cpp 0c1e570 common/chat.cpp, common_chat_templates_init.
    """
    both = replace(INFO, chat_template="first", tool_template="tools")

    assert ChatTemplate.of(both).for_tools().render([USER]) == "tools"
    assert ChatTemplate.of(both).render([USER]) == "first"
    assert ChatTemplate.of(INFO).for_tools().source == INFO.chat_template
    assert ChatTemplate.of(replace(both, chat_template="")).render([USER]) == "tools"
    assert ChatTemplate.of(replace(both, chat_template="chatml")).render([USER]) == "tools"
    assert ChatTemplate.of(replace(both, tool_template="{% for %}")).for_tools().render([USER]) == "first"


def test_whitespace_and_extensions() -> None:
    """Blocks leave no line ends or indentation; break and generation are known."""
    template = """{% for m in messages %}
    {% if loop.index > 1 %}
        {% break %}
    {% endif %}
[{{ m.content }}]
    {%- generation %}
!{% endgeneration %}
{% endfor %}"""

    assert render(template, USER, USER) == "[<a> & b]!"


def test_tojson() -> None:
    """The tojson filter writes JSON for a model, not for HTML."""
    text = render("{{ messages[0] | tojson }}", {"role": "user", "content": "<é>"})

    assert text == '{"role": "user", "content": "<é>"}'
    assert json.loads(render("{{ messages[0] | tojson(indent=2) }}")) == USER


def test_what_is_nothing_beside_a_text() -> None:
    """A name that nobody defines, and None, add nothing to a text, as in llama.cpp; a number is still a mistake.

    Source: llama.cpp 0c1e570 common/jinja/runtime.cpp, binary_expression::execute_impl.
    """
    assert render("{{ 'a' + functions + 'b' }}{{ none + 'c' }}{{ 'd' ~ none ~ functions }}") == "abcd"
    with pytest.raises(ChatTemplateError, match="TypeError"):
        render("{{ 'a' + 1 }}")


def test_safe_is_as_it_is() -> None:
    """What is joined to a text that is called safe is not escaped for HTML."""
    assert render("{{ '<' | safe + messages[0].content + messages[0] | tojson }}", adds_bos=False) == (
        '<<a> & b{"role": "user", "content": "<a> & b"}'
    )


def test_strftime_now() -> None:
    """strftime_now gives today's date."""
    assert render("{{ strftime_now('%Y') }}") in {str(datetime.now().year + n) for n in (-1, 0)}


def test_bos_is_not_doubled() -> None:
    """BOS that a template writes is left out where tokenizing adds it, and kept where it does not."""
    assert render("{{ bos_token }}hi", adds_bos=True) == "hi"
    assert render("{{ bos_token }}hi", adds_bos=False) == "<s>hi"


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ raise_exception('only user messages') }}", "refuses this conversation: only user messages"),
        ("{{ messages[5].content.x() }}", "fails on this conversation: UndefinedError"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ("{{ ''.__class__.__mro__ }}", "SecurityError"),
        ("{{ messages.append(1) }}", "SecurityError"),
    ],
)
def test_what_a_template_cannot_do(template: str, said: str) -> None:
    """A refusal, a mistake and an escape from the sandbox are errors with their reason."""
    with pytest.raises(ChatTemplateError, match=said):
        render(template)


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{ tools[0].function.parameters.items.type }}x", "x"),
        ("{{ no.thing.there is defined }}", "False"),
        ("{% for each in no.thing %}{{ each }}{% endfor %}x", "x"),
        ("{{ messages[0].no.thing | default('none') }}", "none"),
    ],
)
def test_what_is_of_something_undefined(template: str, text: str) -> None:
    """It is undefined, as llama.cpp has it: Command R's template asks a tool's arguments for what few have."""
    assert render(template) == text


def test_invalid_template() -> None:
    """A template that is no Jinja is an error, not ChatML in its place."""
    with pytest.raises(ChatTemplateError, match="not valid"):
        render("{% for %}")


def test_no_template(caplog: pytest.LogCaptureFixture) -> None:
    """Without a template conversations are ChatML, which the log says, and its end mark ends an answer."""
    with caplog.at_level(logging.WARNING):
        template = ChatTemplate.of(replace(INFO, chat_template=""))

    assert template.render([{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]) == (
        "<|im_start|>system\ns<|im_end|>\n<|im_start|>user\nu<|im_end|>\n<|im_start|>assistant\n"
    )
    assert template.stop == (CHATML_STOP,)
    assert "no chat template" in caplog.text
