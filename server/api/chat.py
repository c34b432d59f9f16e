"""POST /v1/chat/completions: the assistant's next words in a conversation."""

from collections.abc import Mapping
from typing import Any

from flask import Blueprint, Response, request

from server.api.errors import bad_request
from server.api.options import read_options
from server.api.replies import Json, Reply, disconnect_probe
from server.api.schema import Fields, read_body
from server.engine.protocol import GenerationRequest
from server.service import Service


class ChatShape:
    """OpenAI's chat.completion. The role comes with the first text: alone it would look like a first token."""

    id_prefix = "chatcmpl-"
    kind = "chat.completion"
    chunk_kind = "chat.completion.chunk"

    def whole(self, text: str, reason: str) -> Json:
        """The choice of a whole answer."""
        message = {"role": "assistant", "content": text}
        return {"index": 0, "message": message, "logprobs": None, "finish_reason": reason}

    def piece(self, text: str, *, first: bool) -> Json:
        """The choice of a chunk with text."""
        delta = {"role": "assistant", "content": text} if first else {"content": text}
        return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}

    def last(self, reason: str, *, first: bool) -> Json:
        """The choice of the chunk that says why it ended."""
        delta = {"role": "assistant", "content": ""} if first else {}
        return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}


def blueprint(service: Service) -> Blueprint:
    """The endpoint, under OpenAI's path."""
    routes = Blueprint("chat", __name__)

    @routes.post("/v1/chat/completions")
    def chat_completions() -> Response:
        fields = read_body(request)
        options = read_options(fields)
        template = service.chat_template
        prompt = template.render(_messages(fields), _variables(fields))
        model = service.engine.info.name
        generation = service.engine.submit(
            GenerationRequest(
                prompt=service.engine.tokenize(prompt),
                max_tokens=options.max_tokens,
                sampling=options.sampling,
                stop=options.stop + template.stop,
                cache_prompt=options.cache_prompt,
            )
        )
        return Reply(
            config=service.config,
            model=model,
            generation=generation,
            shape=ChatShape(),
            options=options,
            disconnected=disconnect_probe(request),
        ).response()

    return routes


def _variables(fields: Fields) -> Mapping[str, Any]:
    """Further names for the template: llama-server's and vLLM's chat_template_kwargs, and OpenAI's reasoning_effort."""
    variables = dict(fields.object("chat_template_kwargs").values)
    effort = fields.string("reasoning_effort")
    return {"reasoning_effort": effort, **variables} if effort else variables


def _messages(fields: Fields) -> list[dict[str, Any]]:
    """The conversation, each content as one string. Keys that only the template knows are handed on.

    Raises:
        ApiError: no messages, or one that is not as it should be.
    """
    values = fields.array("messages")
    if not values:
        raise bad_request("messages is missing or empty, expected an array of messages", param="messages")
    messages = []
    for index, value in enumerate(values):
        if not isinstance(value, dict):
            raise bad_request(f"messages[{index}] is not an object", param=f"messages[{index}]")
        message = Fields(value, f"messages[{index}].")
        if not message.string("role"):
            raise bad_request(f"messages[{index}].role is missing", param=f"messages[{index}].role")
        messages.append({**value, "content": _content(message)})
    return messages


def _content(message: Fields) -> str:
    """A message's content: a string, or text parts, which are joined by newlines as llama-server joins them.

    An assistant's message may have none (null) beside tool calls.
    """
    value = message.get("content")
    if value is None:
        if message.get("tool_calls") or message.string("role") == "assistant":
            return ""
        raise bad_request(f"{message.param('content')} is missing", param=message.param("content"))
    if isinstance(value, str):
        return message.unicode("content", value)
    if not isinstance(value, list):
        raise message.wrong("content", "a string or an array of parts")
    return "\n".join(_part(part, message.param(f"content[{index}]")) for index, part in enumerate(value))


def _part(value: object, param: str) -> str:
    if not isinstance(value, dict):
        raise bad_request(f"{param} is not an object", param=param)
    part = Fields(value, f"{param}.")
    if part.get("type") != "text":
        raise bad_request(
            f"{param} is of type {part.get('type')!r}, but only text parts are supported",
            param=param,
            code="unsupported_parameter",
        )
    if part.get("text") is None:
        raise bad_request(f"{param}.text is missing", param=f"{param}.text")
    return part.string("text")
