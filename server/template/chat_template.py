"""What text does a conversation become? The model's own Jinja template, or ChatML when its file has none.

Names and settings are those that templates are written for (Hugging Face's chat templating), and what llama-server
defines for them, no more: a name that it leaves undefined is undefined here, since templates ask for that, and what is
of such a name, too.
"""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, Self

import jinja2
import jinja2.ext
from jinja2 import nodes
from jinja2.parser import Parser

from server.engine.model_info import ModelInfo
from server.template.chatml import CHATML, CHATML_STOP
from server.template.sandbox import LimitError, Sandbox, bounded

LOGGER: Final = logging.getLogger(__name__)

LIMIT_S: Final = 2.0  # of processor time for a conversation; real templates take some ms for a hundred messages
ATTEMPT_S: Final = 0.2  # for the small ones that ask what a template understands


class ChatTemplateError(ValueError):
    """The template cannot be used, or refuses the conversation; the message is the template's own where it has one."""


class EndlessTemplateError(ChatTemplateError):
    """The template goes on for too long, or makes something too large."""


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
    """A compiled template. `stop` are strings that end an answer, besides the model's end tokens.

    `limit_s`: the processor time that a rendering may take.
    """

    source: str
    template: jinja2.Template
    info: ModelInfo
    stop: tuple[str, ...] = ()
    limit_s: float = LIMIT_S

    @classmethod
    def of(cls, info: ModelInfo) -> Self:
        """Compile the model's template, or ChatML where it has none.

        Source: llama.cpp 0c1e570 common/chat.cpp, common_chat_templates_init, for what stands in for what.

        Raises:
            ChatTemplateError: the template is not valid Jinja.
        """
        source = info.tool_template if info.chat_template in ("", "chatml") else info.chat_template
        if not source and info.generates:
            LOGGER.warning("the model has no chat template: conversations are written as ChatML, which it may not know")
        template = compiled(source or CHATML)
        return cls(source=source or CHATML, template=template, info=info, stop=() if source else (CHATML_STOP,))

    def for_tools(self) -> "ChatTemplate":
        """The template of conversations with tools: the file's own for them (`tool_use`), else this one.

        One that is no valid Jinja is not used, as llama.cpp has it.
        """
        if self.info.tool_template in ("", self.source):
            return self
        try:
            return ChatTemplate.of(replace(self.info, chat_template=self.info.tool_template))
        except ChatTemplateError as error:
            LOGGER.warning("tokenizer.chat_template.tool_use is not used: %s", error)
            return self

    def attempt(self, messages: Sequence[Mapping[str, Any]], variables: Mapping[str, Any]) -> str | None:
        """As `render`, None where the template refuses or fails."""
        try:
            return replace(self, limit_s=min(self.limit_s, ATTEMPT_S)).render(messages, variables)
        except ChatTemplateError:
            return None

    def render(self, messages: Sequence[Mapping[str, Any]], variables: Mapping[str, Any] | None = None) -> str:
        """The prompt for the assistant's next words; `variables` are further names for the template.

        Without the BOS text that templates put in front where tokenizing adds it anyway.

        Raises:
            ChatTemplateError: the template refuses the conversation, or fails on it.
        """
        context: dict[str, Any] = {**_dates(), "add_generation_prompt": True, **(variables or {})}
        if context["add_generation_prompt"] is False:
            del context["add_generation_prompt"]
        context |= {
            "messages": messages,
            "bos_token": self.info.bos_text,
            "eos_token": self.info.eos_text,
        }
        try:
            with bounded(self.limit_s, context):
                text = self.template.render(context)
        except _Refused as error:
            raise ChatTemplateError(f"the model's chat template refuses this conversation: {error}") from error
        except LimitError as error:
            raise EndlessTemplateError(f"the model's chat template {error} (of this conversation)") from error
        except Exception as error:  # a template can fail in any way Python can
            raise ChatTemplateError(
                f"the model's chat template fails on this conversation: {type(error).__name__}: {error}"
            ) from error
        return text.removeprefix(self.info.bos_text) if self.info.adds_bos else text


def compiled(source: str) -> jinja2.Template:
    """A template to be rendered.

    Raises:
        ChatTemplateError: it is not valid Jinja.
    """
    try:
        with bounded(LIMIT_S, {}):  # constants are worked out now
            return _environment().from_string(source)
    except Exception as error:  # Python compiles what Jinja makes of it: nested too deeply, numbers too large
        raise ChatTemplateError(f"the model's chat template is not valid: {error}") from error


def _dates() -> dict[str, str]:
    """Source: llama.cpp 0c1e570 common/chat.cpp, common_chat_extra_context."""
    now = datetime.now()
    return {"datetime": now.strftime("%b %d %Y"), "date_string": now.strftime("%d %b %Y")}


def _environment() -> Sandbox:
    environment = Sandbox(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols],
        undefined=jinja2.ChainableUndefined,
    )  # fmt: skip
    environment.use_filter("tojson", _to_json)
    environment.use_filter("safe", _as_it_is)
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment


def _raise_exception(message: str) -> None:
    raise _Refused(message)


def _strftime_now(format: str) -> str:
    return datetime.now().strftime(format)


def _as_it_is(value: Any) -> Any:
    """Jinja's own would have what is joined to it escaped for HTML."""
    return value


def _to_json(value: Any, indent: int | None = None, **options: Any) -> str:
    """Jinja's own tojson escapes < and > for HTML, which a model must not see."""
    options.setdefault("ensure_ascii", False)
    return json.dumps(value, indent=indent, default=_listed, **options)


def _listed(value: Any) -> list[Any]:
    """What filters leave to be iterated over, such as `tools | map(...)`, which is a list in llama.cpp.

    Raises:
        TypeError: it is none of these.
    """
    if isinstance(value, Iterator):
        return list(value)
    raise TypeError(f"{type(value).__name__} is no JSON")
