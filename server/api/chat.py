"""POST /v1/chat/completions: the assistant's next words in a conversation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from flask import Blueprint, Response, jsonify, request

from server.api.answers import Answers
from server.api.conversation.calls import Calls
from server.api.conversation.capabilities import Capabilities, probe
from server.api.conversation.plain import SIGN, marked, tokens_of
from server.api.conversation.tools import Tools, instruction, read_tools
from server.api.errors import bad_request
from server.api.logprobs import chat_logprobs
from server.api.messages import read_messages
from server.api.options import TOP_MAX, read_options
from server.api.replies import Choice, Json, Kind, Reply, disconnect_probe
from server.api.schema import Fields, read_body
from server.chat_template import ChatTemplate
from server.engine.protocol import Finished, GenerationRequest, Piece, PromptScores, TokenInfo
from server.service import Service

KIND: Final = Kind(id_prefix="chatcmpl-", whole="chat.completion", chunk="chat.completion.chunk")
THINK: Final = ("<think>", "</think>")
Stage = Literal["undecided", "thinking", "after", "saying"]
"""Where in an answer we are: it may begin with thoughts, is within them, just behind them, or says something."""


class ChatAnswer:
    """OpenAI's chat.completion. The role comes with the first text: alone it would look like a first token."""

    def __init__(self, index: int, *, logprobs: bool, tools: Tools | None, thinks: Stage) -> None:
        self.index = index
        self.logprobs = logprobs
        self.tokens: list[TokenInfo] = []
        self.reasoning = ""
        self.text = ""
        self._stage = thinks
        self._held = ""
        self._calls = Calls(tools.style) if tools else None
        self._first = True

    def opening(self) -> list[Json]:
        """Nothing comes before the first piece."""
        return []

    def scores(self, event: PromptScores) -> None:
        """A conversation is not echoed."""

    def piece(self, event: Piece) -> list[Json]:
        """A piece of text, as reasoning, content and calls."""
        self.tokens += event.tokens
        deltas = self._deltas(event.text)
        if not deltas and not (self.logprobs and event.tokens):
            return []
        chunks = [self._chunk(delta) for delta in deltas or [{"content": ""}]]
        if self.logprobs:
            chunks[0]["logprobs"] = chat_logprobs(event.tokens)
        return chunks

    def last(self, event: Finished) -> list[Json]:
        """What was held back, and why it ended."""
        chunks = [self._chunk(delta) for delta in self._rest()]
        delta: Json = {"role": "assistant", "content": ""} if self._first else {}
        return [*chunks, {"index": self.index, "delta": delta, "logprobs": None, "finish_reason": self._reason(event)}]

    def whole(self, event: Finished) -> Json:
        """The whole message."""
        self._rest()
        calls = self._calls.calls if self._calls is not None else []
        content = self._calls.content if self._calls is not None else self.text
        message: Json = {"role": "assistant", "content": content if content or not calls else None}
        if self.reasoning:
            message["reasoning_content"] = self.reasoning
        if calls:
            message["tool_calls"] = calls
        return {
            "index": self.index,
            "message": message,
            "logprobs": chat_logprobs(self.tokens) if self.logprobs else None,
            "finish_reason": self._reason(event),
        }

    def _reason(self, event: Finished) -> str:
        called = self._calls is not None and self._calls.calls
        return "tool_calls" if called and event.reason == "stop" else event.reason

    def _chunk(self, delta: Json) -> Json:
        if self._first:
            delta = {"role": "assistant", "content": None, **delta}
            self._first = False
        return {"index": self.index, "delta": delta, "logprobs": None, "finish_reason": None}

    def _deltas(self, text: str) -> list[Json]:
        self._held += text
        begin, end = THINK
        if self._stage == "undecided":
            start = self._held.lstrip()
            if start.startswith(begin):
                self._stage, self._held = "thinking", start.removeprefix(begin)
            elif not begin.startswith(start):
                self._stage = "saying"
        deltas: list[Json] = []
        if self._stage == "thinking":
            thought, found, rest = self._held.partition(end)
            keep = 0 if found else next((n for n in range(len(end) - 1, 0, -1) if thought.endswith(end[:n])), 0)
            deltas = self._think(thought[: len(thought) - keep])
            self._held = rest if found else thought[len(thought) - keep :]
            self._stage = "after" if found else "thinking"
        if self._stage == "after":  # blank lines between thoughts and words belong to neither
            self._held = self._held.lstrip("\n")
            self._stage = "saying" if self._held else "after"
        if self._stage == "saying":
            said, self._held = self._held, ""
            deltas += self._said(said)
        return deltas

    def _think(self, thought: str) -> list[Json]:
        if not self.reasoning:
            thought = thought.lstrip("\n")
        self.reasoning += thought
        return [{"reasoning_content": thought}] if thought else []

    def _said(self, text: str) -> list[Json]:
        if self._calls is not None:
            return self._calls.feed(text)
        self.text += text
        return [{"content": text}] if text else []

    def _rest(self) -> list[Json]:
        held, self._held = self._held, ""
        deltas = self._think(held) if self._stage == "thinking" else self._said(held)
        return deltas + (self._calls.close() if self._calls is not None else [])


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """What is asked of the model: the prompt's text, and how its answer is to be read."""

    text: str
    tools: Tools | None
    thinks: "Stage"


class Conversations:
    """Conversations to prompts, by the served model's template; what that understands is found out once."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._known: tuple[ChatTemplate, Capabilities] | None = None

    def capabilities(self) -> tuple[ChatTemplate, Capabilities]:
        """The template and what it understands."""
        template = self._service.chat_template
        if self._known is None or self._known[0] is not template:
            self._known = template, probe(template.attempt)
        return self._known

    def read(self, fields: Fields) -> Conversation:
        """The conversation of a request.

        Raises:
            ApiError: messages or tools that are none.
            ChatTemplateError: the template refuses the conversation, or fails on it.
        """
        template, understood = self.capabilities()
        messages = read_messages(fields)
        tools = read_tools(fields, template.source)
        variables = _variables(fields)
        if not self._service.config.control_tokens_in_chat:
            messages = marked(messages, self._service.engine)
        if tools is not None:
            if understood.tools:
                variables["tools"] = list(tools.listed)
            else:
                messages = [{"role": "system", "content": instruction(tools.listed)}, *_one_system(messages)]
                messages = _merged_system(messages)
        continued = ""
        if messages[-1]["role"] == "assistant" and not messages[-1].get("tool_calls"):
            continued = messages.pop()["content"]  # the model goes on from it
        if not messages:
            raise bad_request("messages has nothing but the beginning of an answer", param="messages")
        text = template.render(understood.messages(messages), variables)
        thinks: Stage = "undecided" if THINK[0] in template.source and not continued else "saying"
        if not continued and text.rstrip().endswith(THINK[0]):
            thinks = "thinking"  # the template began them
        if continued and text.rstrip().endswith(THINK[0]):
            text = text[: text.rindex(THINK[0])]  # the answer is begun: its thoughts are over
        return Conversation(text=text + continued, tools=tools, thinks=thinks)

    def tokens(self, text: str) -> tuple[int, ...]:
        """Tokens of a prompt that `read` made."""
        return tokens_of(text, self._service.engine)


def blueprint(service: Service) -> Blueprint:
    """The endpoint under OpenAI's path, and what belongs to it: the prompt's text and length without an answer."""
    routes = Blueprint("chat", __name__)
    conversations = Conversations(service)

    @routes.post("/v1/chat/completions")
    def chat_completions() -> Response:
        fields = read_body(request)
        options = read_options(fields, service.engine)
        conversation = conversations.read(fields)
        logprobs = _logprobs(fields)
        tools = conversation.tools
        sampling = options.sampling
        more: dict[str, Any] = {"stop": options.stop + service.chat_template.stop, "n_logprobs": logprobs}
        asked = options.request(conversations.tokens(conversation.text), **more)
        if tools is not None:
            asked = _with_tools(asked, tools, has_grammar=sampling.grammar is not None)
        choices: list[Choice] = [
            ChatAnswer(i, logprobs=logprobs is not None, tools=tools, thinks=conversation.thinks)
            for i in range(options.n)
        ]
        return Reply(
            config=service.config,
            model=service.engine.info.name,
            answers=Answers(service.engine, [asked]),
            kind=KIND,
            choices=choices,
            options=options,
            disconnected=disconnect_probe(request),
            metrics=service.metrics,
        ).response()

    @routes.post("/apply-template")
    def apply_template() -> Response:
        return jsonify({"prompt": conversations.read(read_body(request)).text.replace(SIGN, "")})

    @routes.post("/v1/chat/completions/input_tokens")
    def input_tokens() -> Response:
        tokens = conversations.tokens(conversations.read(read_body(request)).text)
        return jsonify({"object": "response.input_tokens", "input_tokens": len(tokens)})

    return routes


def _with_tools(asked: GenerationRequest, tools: Tools, *, has_grammar: bool) -> GenerationRequest:
    if has_grammar:
        if tools.forced:
            raise bad_request("a grammar and a forced tool call contradict each other: send one", param="tool_choice")
        return asked
    sampling = replace(asked.sampling, grammar=tools.grammar())
    return replace(asked, sampling=sampling, show_special=tools.style.control)


def _logprobs(fields: Fields) -> int | None:
    """How many likely tokens beside each; None: no scores. `n_probs` is llama-server's name."""
    top = fields.integer("top_logprobs", 0, TOP_MAX)
    if fields.boolean("logprobs", False):
        return top or 0
    if top:
        raise bad_request("top_logprobs needs logprobs to be true", param="top_logprobs")
    return fields.integer("n_probs", 0, 2**31 - 1) or None


def _variables(fields: Fields) -> dict[str, Any]:
    """Further names for the template: llama-server's and vLLM's chat_template_kwargs, and OpenAI's reasoning_effort."""
    variables: dict[str, Any] = dict(fields.object("chat_template_kwargs").values)
    effort = fields.string("reasoning_effort")
    if effort:
        variables.setdefault("reasoning_effort", effort)
    if fields.get("add_generation_prompt") is not None:
        variables["add_generation_prompt"] = fields.boolean("add_generation_prompt", True)
    return variables


def _one_system(messages: list[Json]) -> list[Json]:
    return [{**m, "role": "system"} if m["role"] == "developer" else m for m in messages]


def _merged_system(messages: Sequence[Mapping[str, Any]]) -> list[Json]:
    """One system message in front, of all there are."""
    said = [m["content"] for m in messages if m["role"] == "system"]
    return [{"role": "system", "content": "\n\n".join(said)}, *(dict(m) for m in messages if m["role"] != "system")]
