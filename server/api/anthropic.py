"""POST /v1/messages/count_tokens: how long is a conversation in Anthropic's words? As llama-server counts it.

Source: llama.cpp 0c1e570 tools/server/server-chat.cpp, server_chat_convert_anthropic_to_oai.
"""

from typing import Any

from flask import Blueprint, Response, jsonify, request

from server.api.conversation.conversations import Conversations
from server.api.errors import bad_request
from server.api.schema import Fields, read_body
from server.service import Service

Json = dict[str, Any]


def blueprint(service: Service, conversations: Conversations) -> Blueprint:
    """The endpoint."""
    routes = Blueprint("anthropic", __name__)

    @routes.post("/v1/messages/count_tokens")
    def count_tokens() -> Response:
        fields = as_chat(read_body(request))
        return jsonify({"input_tokens": len(conversations.tokens(conversations.read(fields).text))})

    return routes


def as_chat(fields: Fields) -> Fields:
    """The request as one of chat: the system's words in front, blocks as parts, calls and what came of them.

    Raises:
        ApiError: a message or a block that is not understood.
    """
    messages: list[Json] = []
    system = fields.get("system")
    if system:
        messages.append({"role": "system", "content": system})
    for i, value in enumerate(fields.array("messages")):
        if not isinstance(value, dict):
            raise bad_request(f"messages[{i}] is not an object", param=f"messages[{i}]")
        messages += _message(Fields(value, f"messages[{i}]."))
    tools = [
        {
            "type": "function",
            "function": {
                "name": tool.get("name"), "description": tool.get("description", ""),
                "parameters": tool.get("input_schema") or {"type": "object"},
            },
        }
        for tool in fields.array("tools")
        if isinstance(tool, dict)
    ]  # fmt: skip
    return Fields({"messages": messages, "tools": tools or None})


def _message(message: Fields) -> list[Json]:
    content = message.get("content")
    role = message.string("role")
    if not isinstance(content, list):
        return [{"role": role, "content": content}]
    parts: list[Json] = []
    calls: list[Json] = []
    results: list[Json] = []
    for i, block in enumerate(content):
        match block.get("type") if isinstance(block, dict) else None:
            case "text":
                parts.append({"type": "text", "text": block.get("text")})
            case "tool_use":
                function = {"name": block.get("name"), "arguments": block.get("input")}
                calls.append({"id": block.get("id"), "type": "function", "function": function})
            case "tool_result":
                said = block.get("content") or ""
                results.append({"role": "tool", "tool_call_id": block.get("tool_use_id"), "content": said})
            case "thinking":
                pass  # templates drop the thoughts of earlier turns
            case kind:
                raise bad_request(
                    f"{message.param('content')}[{i}] is of type {kind!r:.40}, expected text, tool_use or tool_result",
                    param=message.param("content"),
                    code="unsupported_parameter",
                )
    spoken = {"role": role, "content": parts or None, **({"tool_calls": calls} if calls else {})}
    return [*results, *([spoken] if parts or calls else [])]
