"""What text a conversation becomes."""

import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

import pytest

from server.chat_template import CHATML_STOP, ChatTemplate, ChatTemplateError
from tests.server.fake_engine import INFO

USER = {"role": "user", "content": "<a> & b"}


def render(template: str, *messages: Mapping[str, object], adds_bos: bool = True, **variables: object) -> str:
    info = replace(INFO, chat_template=template, adds_bos=adds_bos)
    return ChatTemplate.of(info).render(list(messages or (USER,)), variables)


def test_names_that_templates_use() -> None:
    """The special tokens, the generation prompt and the caller's own names are there; tools is None, not undefined."""
    template = (
        "{{ messages[0].content }}|{{ eos_token }}|{{ add_generation_prompt }}|{{ tools is none }}|{{ thinking }}"
    )

    assert render(template, thinking=False) == "<a> & b|</s>|True|True|False"


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
        ("{{ messages[5].content.x }}", "fails on this conversation: UndefinedError"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ("{{ ''.__class__.__mro__ }}", "SecurityError"),
        ("{{ messages.append(1) }}", "SecurityError"),
    ],
)
def test_what_a_template_cannot_do(template: str, said: str) -> None:
    """A refusal, a mistake and an escape from the sandbox are errors with their reason."""
    with pytest.raises(ChatTemplateError, match=said):
        render(template)


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
