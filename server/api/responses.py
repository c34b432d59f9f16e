"""POST /v1/responses: OpenAI's newer words for a conversation. Nothing is stored: each request brings all of it."""

from flask import Blueprint, Response, jsonify, request

from server.api.answers import Answers
from server.api.chat import n_tokens, read_chat_logprobs, request_of
from server.api.conversation.conversations import CONVERSING, Conversations
from server.api.errors import bad_request
from server.api.options import read_options
from server.api.replies import reply
from server.api.responses_answer import ResponseAnswer
from server.api.responses_input import as_chat
from server.api.schema import read_body
from server.service import Service


def blueprint(service: Service, conversations: Conversations) -> Blueprint:
    """The endpoint, and the length of what it would be asked."""
    routes = Blueprint("responses", __name__)

    @routes.post("/v1/responses")
    @routes.post("/responses")
    def responses() -> Response:
        asked = read_body(request)
        fields = as_chat(asked)
        options = read_options(fields, service.engine, supported=CONVERSING)
        if options.n > 1:
            raise bad_request("n is more than one, and a response is one answer", param="n")
        conversation = conversations.read(fields)
        logprobs = read_chat_logprobs(fields)
        generation = request_of(conversation, conversations, options, service, n_logprobs=logprobs)
        shape = ResponseAnswer(
            options.model, asked, conversation.reading(), logprobs=logprobs is not None,
            n_thought=lambda thoughts: n_tokens(thoughts, service.engine),
        )  # fmt: skip
        return reply(service, Answers(service.engine, [generation]), shape, options)

    @routes.post("/v1/responses/input_tokens")
    @routes.post("/responses/input_tokens")
    def input_tokens() -> Response:
        tokens = conversations.prompt(conversations.read(as_chat(read_body(request)))).tokens
        return jsonify({"object": "response.input_tokens", "input_tokens": len(tokens)})

    return routes
