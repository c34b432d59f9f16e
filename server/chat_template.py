"""What text does a conversation become? The model's own Jinja template, or ChatML when its file has none.

The template comes from a file somebody else made, so it runs in Jinja's sandbox. Names and settings are those that
templates are written for (Hugging Face's chat templating).
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Self

import jinja2
import jinja2.ext
from jinja2 import nodes
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from server.engine.protocol import ModelInfo

LOGGER: Final = logging.getLogger(__name__)

CHATML: Final = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CHATML_STOP: Final = "<|im_end|>"


class ChatTemplateError(ValueError):
    """The template cannot be used, or refuses the conversation; the message is the template's own where it has one."""


class _Refused(jinja2.TemplateError):
    """What a template's raise_exception raises."""


class _Generation(jinja2.ext.Extension):
    """`{% generation %}`: marks the assistant's words for training; for serving it is what it contains."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return list(parser.parse_statements(("name:endgeneration",), drop_needle=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatTemplate:
    """A compiled template. `stop` are strings that end an answer, besides the model's end tokens."""

    template: jinja2.Template
    info: ModelInfo
    stop: tuple[str, ...] = ()

    @classmethod
    def of(cls, info: ModelInfo) -> Self:
        """Compile the model's template, or ChatML where it has none.

        Raises:
            ChatTemplateError: the template is not valid Jinja.
        """
        if not info.chat_template:
            LOGGER.warning("the model has no chat template: conversations are written as ChatML, which it may not know")
        try:
            template = _environment().from_string(info.chat_template or CHATML)
        except Exception as error:  # Python compiles what Jinja makes of it: nested too deeply, numbers too large
            raise ChatTemplateError(f"the model's chat template is not valid: {error}") from error
        return cls(template=template, info=info, stop=() if info.chat_template else (CHATML_STOP,))

    @property
    def source(self) -> str:
        """The template's text."""
        return self.info.chat_template or CHATML

    def attempt(self, messages: Sequence[Mapping[str, Any]], variables: Mapping[str, Any]) -> str | None:
        """As `render`, None where the template refuses or fails."""
        try:
            return self.render(messages, variables)
        except ChatTemplateError:
            return None

    def render(self, messages: Sequence[Mapping[str, Any]], variables: Mapping[str, Any] | None = None) -> str:
        """The prompt for the assistant's next words; `variables` are further names for the template.

        Without the BOS text that templates put in front where tokenizing adds it anyway.

        Raises:
            ChatTemplateError: the template refuses the conversation, or fails on it.
        """
        context: dict[str, Any] = {
            "tools": None, "documents": None, "add_generation_prompt": True, **(variables or {}),
        }  # fmt: skip
        context |= {
            "messages": messages,
            "bos_token": self.info.bos_text,
            "eos_token": self.info.eos_text,
        }
        try:
            text = self.template.render(context)
        except _Refused as error:
            raise ChatTemplateError(f"the model's chat template refuses this conversation: {error}") from error
        except Exception as error:  # a template can fail in any way Python can
            raise ChatTemplateError(
                f"the model's chat template fails on this conversation: {type(error).__name__}: {error}"
            ) from error
        return text.removeprefix(self.info.bos_text) if self.info.adds_bos else text


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment


def _raise_exception(message: str) -> None:
    raise _Refused(message)


def _strftime_now(format: str) -> str:
    return datetime.now().strftime(format)


def _to_json(value: Any, indent: int | None = None, **options: Any) -> str:
    """Jinja's own tojson escapes < and > for HTML, which a model must not see."""
    options.setdefault("ensure_ascii", False)
    return json.dumps(value, indent=indent, **options)
