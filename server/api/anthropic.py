"""POST /v1/messages: a conversation in Anthropic's words, answered in them, and its length without an answer."""

import json

from flask import Blueprint, Response, jsonify, request

from server.api.answers import Answers
from server.api.anthropic_answer import MessageAnswer, as_error
from server.api.anthropic_input import as_chat
from server.api.chat import request_of
from server.api.conversation.conversations import CONVERSING, Conversations
from server.api.errors import bad_request
from server.api.options import read_options
from server.api.replies import reply
from server.api.schema import read_body
from server.service import Service


def blueprint(service: Service, conversations: Conversations) -> Blueprint:
    """Both of them; whatever is refused here, keys and all, is refused in Anthropic's shape."""
    routes = Blueprint("anthropic", __name__)

    @routes.post("/v1/messages")
    def messages() -> Response:
        fields = as_chat(read_body(request))
        options = read_options(fields, service.engine, supported=CONVERSING)
        if options.n > 1:
            raise bad_request("n is more than one, and a message is one answer", param="n")
        conversation = conversations.read(fields)
        asked = request_of(conversation, conversations, options, service)
        shape = MessageAnswer(
            options.model, conversation.reading(), n_prompt=len(asked.prompt), stop=fields.strings("stop")
        )
        return reply(service, Answers(service.engine, [asked]), shape, options)

    @routes.post("/v1/messages/count_tokens")
    def count_tokens() -> Response:
        fields = as_chat(read_body(request))
        return jsonify({"input_tokens": len(conversations.prompt(conversations.read(fields)).tokens)})

    @routes.after_request
    def in_their_words(response: Response) -> Response:
        if response.status_code >= 400 and response.is_json:
            response.data = json.dumps(as_error(response.status_code, response.get_json()))
        return response

    return routes
