"""Conversations to prompts, by the served model's template."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from server.api.constraint import checked
from server.api.conversation.addressed import Addressed
from server.api.conversation.answer_grammar import ON_FINAL_CHANNEL, answer_gbnf, in_message
from server.api.conversation.begun import PARTED, begun
from server.api.conversation.capabilities import Capabilities, Turn
from server.api.conversation.channels import MARKS, Channels
from server.api.conversation.channels import THOUGHTS as THOUGHTS_ON_CHANNEL
from server.api.conversation.plain import marked, tokens_of
from server.api.conversation.probing import KEEPS, probe, with_a_tool
from server.api.conversation.reading import THINK, Marks, Reader, Reading, Stage
from server.api.conversation.recipients import Recipients
from server.api.conversation.style import CHANNELS, Style, style_of
from server.api.conversation.tools import Tools, as_shown, instruction, read_tools
from server.api.errors import bad_request
from server.api.media import Media
from server.api.messages import read_messages, text_of
from server.api.schema import Fields
from server.config import THOUGHTS
from server.engine.media import Read
from server.engine.sampling import Grammar
from server.service import Service
from server.template.chat_template import ChatTemplate

Json = dict[str, Any]
BUDGETS: Final = ("reasoning_budget_tokens", "thinking_budget_tokens")
THOUGHTS_ALONE: Final = "reasoning_content"  # what `continue_final_message` says to go on within thoughts
CONVERSING: Final = (*BUDGETS, "reasoning_budget_message")  # fields that `read` reads, and nobody else


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """What is asked of the model: the prompt's text, and how its answer is to be read."""

    text: str
    media: Media  # whose marks are in it
    tools: Tools | None
    stage: Stage
    thinks: Stage  # the same, whether thoughts are told from words or not
    budget: int | None  # tokens that thoughts may have
    closing: str  # what ends them then
    marks: Marks = THINK  # what stands around them
    may_think: bool = False  # the answer may begin with thoughts, which are not begun
    is_begun: bool = False  # the prompt ends within the answer's words
    channels: bool = False  # the answer is messages on channels
    to: Recipients | None = None  # the answer is messages to somebody
    parses_calls: bool = True
    echoed: str = ""  # the answer's beginning, where it is to be shown

    @property
    def shown(self) -> tuple[str, ...]:
        """What is read in the answer's text, though it may be control tokens."""
        calls = self.tools.style.marks if self.tools is not None else ()
        return self.marks + calls + (MARKS if self.channels else ()) + (self.to.marks if self.to else ())

    def grammar(self, asked: Grammar | None) -> Grammar | None:
        """Of the answer: of its words, as they are asked for, or calls of its tools, where these may be made.

        Source: llama.cpp 0c1e570 common/chat-auto-parser-generator.cpp, peg_generator::generate_parser (thoughts stand
        in front); there a format leaves no calls.

        Raises:
            ApiError: words are asked for, and a call is forced.
        """
        tools = self.tools
        if asked is None and (tools is None or not tools.forced):
            return None if tools is None else tools.lazy_grammar()
        if asked is not None and tools is not None and tools.forced:
            raise bad_request("a grammar and a forced tool call contradict each other: send one", param="tool_choice")
        text = answer_gbnf(
            None if asked is None else asked.text, None if tools is None else tools.gbnf(alone=True),
            thoughts=self.marks if self.may_think else (), in_front=self._in_front,
        )  # fmt: skip
        return Grammar(text=checked(text, "tools" if asked is None else "response_format"))

    @property
    def _in_front(self) -> tuple[str, str]:
        """What stands in front of words and of calls, in GBNF."""
        if self.thinks == "saying" and self.is_begun:
            return "", ""
        return (ON_FINAL_CHANNEL, "") if self.channels else in_message(self.to) if self.to else ("", "")

    def reading(self) -> Reader:
        """A reader of one answer."""
        if self.to is not None:
            tools = self.tools if self.parses_calls else None
            return Addressed(
                self.to, tools.style if tools else None, tools=tools.schemas if tools else {},
                stage=self.thinks if self.thinks == "thinking" or self.is_begun else "undecided",
                keeps_thoughts=self.stage != self.thinks,
            )  # fmt: skip
        if self.channels:
            return Channels(
                stage=self.thinks, keeps_thoughts=self.stage != self.thinks,
                reads_calls=self.tools is not None and self.parses_calls,
            )  # fmt: skip
        if self.tools is None or not self.parses_calls:
            return Reading(style=None, stage=self.stage, marks=self.marks)
        return Reading(
            style=self.tools.style, stage=self.stage, tools=self.tools.schemas, marks=self.marks,
            forced=self.tools.forced,
        )  # fmt: skip


class Conversations:
    """Conversations of requests; what the template understands is found out once."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._known: dict[ChatTemplate, Capabilities] = {}
        self._tokens: dict[str, tuple[int, ...]] = {}

    def capabilities(self, *, with_tools: bool) -> tuple[ChatTemplate, Capabilities]:
        """The template of conversations with or without tools, and what it understands."""
        template = self._service.tool_template if with_tools else self._service.chat_template
        if template not in self._known:
            of_tools = template is not self._service.chat_template
            self._known[template] = probe(
                with_a_tool(template.attempt) if of_tools else template.attempt, template.source
            )
        return template, self._known[template]

    def read(self, fields: Fields) -> Conversation:
        """The conversation of a request.

        Raises:
            ApiError: messages or tools that are none.
            ChatTemplateError: the template refuses the conversation, or fails on it.
        """
        config = self._service.config
        asked = config.field_defaults
        media = Media(lambda: self._service.engine)
        messages = read_messages(fields, media)
        tools = read_tools(fields, self._writes_calls)
        template, understood = self.capabilities(with_tools=tools is not None)
        variables = _variables(fields, asked.get("chat_template_kwargs", {}))
        if "enable_thinking" in template.source:
            variables.setdefault("enable_thinking", bool(understood.around.start))
        if not config.control_tokens_in_chat:
            messages = marked(messages, self._service.engine)
        if tools is not None:
            if understood.tools:
                variables["tools"] = [as_shown(tool, bare=understood.bare_tools) for tool in tools.listed]
            else:
                messages = _with_instruction(messages, instruction(tools.listed, tools.style))
        last, begins = messages[-1], False
        if _is_continued(fields, config.prefill_assistant) and last["role"] == "assistant":
            begins = not last.get("tool_calls")
            if begins:
                messages.pop()  # the model goes on from it
            if fields.get("continue_final_message") == THOUGHTS_ALONE:
                last = {**last, "content": ""}  # its words are not reached

        def written(messages: Sequence[Mapping[str, Any]], **more: Any) -> str:
            return template.render(understood.messages(messages), {**variables, **more})

        begins = begins and bool(text_of(last["content"]) or last.get("reasoning_content"))
        text = begun(written, messages, last, understood.around) if begins else written(messages)
        if last["role"] == "tool" and variables.get("add_generation_prompt", True):
            text = understood.turn.asked_for(text)
        words = text_of(last["content"], PARTED) if begins else ""
        known = THOUGHTS_ON_CHANNEL if understood.channels else THINK if THINK[0] in template.source else None
        marks = understood.around.marks or known
        around = marks or THINK
        thinks, as_text = _stage(marks, understood.turn, text, words), config.skip_chat_parsing
        if begins and not words and understood.around.start:
            thinks = "thinking"  # goes on within thoughts
        if as_text and tools is not None and not tools.forced:
            tools = None  # the model writes calls as it likes
        return Conversation(
            text=text, media=media, tools=tools, thinks=thinks,
            stage="saying" if as_text or _keeps_thoughts(fields, asked.get("reasoning_format", "auto")) else thinks,
            budget=_budget(fields, asked.get("reasoning_budget_tokens", -1)),
            closing=fields.string("reasoning_budget_message", asked.get("reasoning_budget_message", "")) + around[1],
            is_begun=bool(words), to=understood.calls.to if understood.calls and not as_text else None,
            marks=around, may_think=thinks == "undecided" and not text.rstrip().endswith(around[1]),
            channels=understood.channels and not as_text,
            parses_calls=fields.boolean("parse_tool_calls", True) and not as_text,
            echoed=words if _is_echoed(fields) else "",
        )  # fmt: skip

    def _writes_calls(self) -> tuple[Style, bool]:
        template, understood = self.capabilities(with_tools=True)
        return CHANNELS if understood.channels else understood.calls or style_of(
            template.source
        ), understood.several_calls

    def tokens_in(self, texts: Iterable[str]) -> frozenset[int]:
        """All tokens of texts, control tokens read; asked for once."""
        for text in texts:
            if text not in self._tokens:
                self._tokens[text] = self._service.engine.tokenize(text, add_special=False)
        return frozenset(token for text in texts for token in self._tokens[text])

    def prompt(self, conversation: Conversation) -> Read:
        """The prompt of a conversation, with what it has of images and sounds. Raises ApiError, as `Media.read`."""
        return conversation.media.read(conversation.text, partial(tokens_of, tokenizer=self._service.engine))


def _stage(marks: Marks | None, turn: Turn, text: str, continued: str) -> Stage:
    """Where the answer begins: the template may have begun its thoughts."""
    if continued or marks is None:
        return "saying"
    if text.rstrip().endswith(marks[0]):
        return "thinking"
    _, begun, rest = (turn.asks if text.endswith(turn.asks) else "").rpartition(marks[0])
    return "thinking" if begun and marks[1] not in rest else "undecided"


def _is_continued(fields: Fields, default: bool) -> bool:
    """Is a last message of the assistant's gone on from? As `continue_final_message` says."""
    value = fields.get("continue_final_message")
    if value in ("content", THOUGHTS_ALONE):
        return True
    if isinstance(value, str):
        raise bad_request(
            f"continue_final_message is {value!r:.32}, expected true, false, content or {THOUGHTS_ALONE}",
            param="continue_final_message",
            code="unsupported_parameter",
        )
    return fields.boolean("continue_final_message", default)


def _is_echoed(fields: Fields) -> bool:
    """Does an answer that was begun show its beginning? As llama-server has it: unless it is asked to go on from it."""
    return fields.boolean("echo", fields.get("continue_final_message") is None)


def _keeps_thoughts(fields: Fields, default: str) -> bool:
    """Do thoughts stay in the content (`reasoning_format` none)?"""
    form = fields.string("reasoning_format", default)
    if form not in THOUGHTS:
        raise bad_request(
            f"reasoning_format is {form!r:.32}, expected one of {', '.join(THOUGHTS)}",
            param="reasoning_format",
            code="unsupported_parameter",
        )
    return form == "none"


def _budget(fields: Fields, default: int) -> int | None:
    """How many tokens thoughts may have; -1, as llama-server has it, is the server's, and of that any number."""
    for name in BUDGETS:
        value = fields.integer(name, -1, 2**31 - 1)
        if value is not None and value >= 0:
            return value
    return default if default >= 0 else None


def _variables(fields: Fields, default: Mapping[str, Any]) -> dict[str, Any]:
    """Further names for the template: llama-server's and vLLM's chat_template_kwargs, and OpenAI's reasoning_effort.

    Earlier thoughts are kept, for templates that ask in one of the words that there are for it.

    Source: llama.cpp 0c1e570 tools/server/server-common.cpp, oaicompat_chat_params_parse; common/arg.cpp,
    common_params_parse_ex (preserve_reasoning); common/jinja/caps.cpp, caps_apply_preserve_reasoning,
    caps_apply_reasoning_effort.
    """
    asked = fields.object("chat_template_kwargs")
    if isinstance(asked.get("enable_thinking"), str):  # templates take any for true
        raise asked.wrong("enable_thinking", "a boolean")
    given = {"preserve_reasoning": True, **default, **asked.values}
    effort = fields.string("reasoning_effort")
    if effort == "none":
        given["enable_thinking"] = False
        given.pop("reasoning_effort", None)
    elif effort:
        given["reasoning_effort"] = effort
    variables: dict[str, Any] = {}
    keeps, strength = given["preserve_reasoning"], given.get("reasoning_effort")
    if isinstance(keeps, bool):
        variables |= {name: keeps is kept for name, kept in KEEPS.items()}
    if strength and isinstance(strength, str):
        variables["reasoning_strength"] = strength
    variables |= given
    if fields.get("add_generation_prompt") is not None:
        variables["add_generation_prompt"] = fields.boolean("add_generation_prompt", True)
    return variables


def _with_instruction(messages: Sequence[Mapping[str, Any]], text: str) -> list[Json]:
    """One system message in front, of all there are, the instruction first."""
    systems = ("system", "developer")
    said = [text, *(text_of(m["content"]) for m in messages if m["role"] in systems)]
    return [{"role": "system", "content": "\n\n".join(said)}, *(dict(m) for m in messages if m["role"] not in systems)]
