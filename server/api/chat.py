"""POST /v1/chat/completions: the assistant's next words in a conversation."""

from dataclasses import replace
from typing import Final

from flask import Blueprint, Response, jsonify, request

from server.api.answers import Answers
from server.api.chat_answer import ChatAnswer
from server.api.choices import Choices, Kind
from server.api.conversation.conversations import CONVERSING, Conversation, Conversations
from server.api.conversation.plain import SIGN
from server.api.errors import bad_request
from server.api.options import Options, read_options
from server.api.replies import reply
from server.api.sampling_fields import INT32_MAX
from server.api.schema import Fields, read_body
from server.engine.protocol import Engine
from server.engine.request import GenerationRequest
from server.engine.sampling import Thoughts
from server.service import Service

KIND: Final = Kind(id_prefix="chatcmpl-", whole="chat.completion", chunk="chat.completion.chunk")


def blueprint(service: Service, conversations: Conversations) -> Blueprint:
    """The endpoint under OpenAI's path, and what belongs to it: the prompt's text and length without an answer."""
    routes = Blueprint("chat", __name__)

    @routes.post("/v1/chat/completions")
    @routes.post("/chat/completions")
    def chat_completions() -> Response:
        fields = read_body(request)
        options = read_options(fields, service.engine, supported=CONVERSING)
        conversation = conversations.read(fields)
        logprobs = read_chat_logprobs(fields)
        asked = request_of(conversation, conversations, options, service, n_logprobs=logprobs)
        answers = [
            ChatAnswer(
                i, conversation.reading(), logprobs=logprobs is not None, drawn=options.sampling.post_sampling_probs,
                with_tokens=options.return_tokens, echoed=conversation.echoed,
            )
            for i in range(options.n)
        ]  # fmt: skip
        shape = Choices(
            KIND, options.model, answers, n=options.n, include_usage=options.include_usage,
            timed=[len(asked.prompt)] if options.timings_per_token else [],
            n_thought=lambda: sum(n_tokens(answer.reasoning, service.engine) for answer in answers),
        )  # fmt: skip
        return reply(service, Answers(service.engine, [asked]), shape, options)

    @routes.post("/apply-template")
    def apply_template() -> Response:
        conversation = conversations.read(read_body(request))
        return jsonify({"prompt": conversation.media.shown(conversation.text.replace(SIGN, ""))})

    @routes.post("/v1/chat/completions/input_tokens")
    @routes.post("/chat/completions/input_tokens")
    def input_tokens() -> Response:
        tokens = conversations.prompt(conversations.read(read_body(request))).tokens
        return jsonify({"object": "response.input_tokens", "input_tokens": len(tokens)})

    return routes


def request_of(
    conversation: Conversation,
    conversations: Conversations,
    options: Options,
    service: Service,
    *,
    n_logprobs: int | None = None,
) -> GenerationRequest:
    """What the engine is asked for a conversation's answers.

    Raises:
        ApiError: a grammar beside a tool call that is forced.
    """
    prompt = conversations.prompt(conversation)
    asked = options.request(
        prompt.tokens, spans=prompt.spans, stop=options.stop + service.chat_template.stop, n_logprobs=n_logprobs
    )
    grammar = conversation.grammar(options.sampling.grammar)
    asked = replace(asked, sampling=replace(asked.sampling, grammar=grammar))
    shown = conversations.tokens_in(conversation.shown)
    return replace(asked, thoughts=_thoughts(conversation, asked, service.engine), shown=shown)


def n_tokens(thoughts: str, engine: Engine) -> int:
    """How many tokens thoughts have: of their text, which the model may have put in others."""
    return len(engine.tokenize(thoughts, add_special=False, parse_special=False)) if thoughts else 0


def _thoughts(conversation: Conversation, asked: GenerationRequest, engine: Engine) -> Thoughts | None:
    """What is to be done about thoughts: they are bounded, or a grammar begins behind them."""
    budget = conversation.budget
    if conversation.thinks == "saying" or (budget is None and asked.sampling.grammar is None):
        return None
    closing = engine.tokenize(conversation.closing, add_special=False)
    marks = conversation.marks[0].encode(), conversation.marks[1].encode()
    return Thoughts(begun=conversation.thinks == "thinking", budget=budget, closing=closing, marks=marks)


def read_chat_logprobs(fields: Fields) -> int | None:
    """How many likely tokens beside each; None: no scores. `n_probs` is llama-server's name."""
    top = fields.integer("top_logprobs", 0, INT32_MAX)
    wanted = fields.get("logprobs")
    if type(wanted) is not int and fields.boolean("logprobs", False):
        return top or 0
    if top:
        raise bad_request("top_logprobs needs logprobs to be true", param="top_logprobs")
    name = "n_probs" if fields.get("n_probs") is not None or isinstance(wanted, bool) else "logprobs"
    return fields.integer(name, 0, INT32_MAX) or None  # as a number, as in completions
