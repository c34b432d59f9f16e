"""Anthropic's messages API, the asking side: its fields in the words of chat, so that there is one way to answer.

Source: llama.cpp 0c1e570 tools/server/server-chat.cpp, server_chat_convert_anthropic_to_oai; anthropic 2.14, messages.
"""

import re
from typing import Any, Final

from server.api.errors import ApiError, bad_request
from server.api.schema import Fields

Json = dict[str, Any]

MAX_TOKENS: Final = 4096  # llama-server's, for a request that forgets the field
OWN: Final = (
    "system", "messages", "tools", "tool_choice", "stop_sequences", "thinking", "metadata", "output_config",
    "output_format", "response_format", "reasoning_effort",
)  # fmt: skip
# Fields that would change the answer and are not had.
UNSUPPORTED: Final = ("mcp_servers", "container")
UNTHREADED: Final = "thread_unsupported_request"  # clients that see it send whole conversations from then on
THINKS: Final = {"": True, "enabled": True, "adaptive": True, "between_tools": True, "disabled": False}
CHOICES: Final = {"auto": "auto", "any": "required", "none": "none"}
# Claude Code puts a stamp that is another one each time in front of all: nothing behind it could be used again.
_STAMP: Final = re.compile(r"(?<=cch=)\w{5}(?=;)")
_STAMPED: Final = "x-anthropic-billing-header:"


def as_chat(fields: Fields) -> Fields:
    """The request as one of chat: the system's words in front, blocks as parts, calls and what came of them.

    Raises:
        ApiError: a message, a block or a tool that is not understood, or a field that is not supported.
    """
    if fields.get("thread"):
        raise ApiError(
            400, "thread is not supported: nothing is stored here; send the whole conversation", param="thread",
            code="unsupported_parameter", more={"details": {"error_code": UNTHREADED, "unsupported": []}},
        )  # fmt: skip
    for name in UNSUPPORTED:
        if fields.get(name):
            raise bad_request(
                f"{name} is not supported by this server; leave it out", param=name, code="unsupported_parameter"
            )
    chat: Json = {name: value for name, value in fields.values.items() if name not in OWN}
    chat.setdefault("max_tokens", MAX_TOKENS)
    chat["messages"] = _messages(fields)
    stop = fields.strings("stop_sequences")
    if stop:
        chat["stop"] = list(stop)
    chat["tools"] = [_tool(value, f"tools[{i}]") for i, value in enumerate(fields.array("tools"))] or None
    chat |= _choice(fields.object("tool_choice"))
    chat["chat_template_kwargs"] = _thinking(fields)
    chat.setdefault("thinking_budget_tokens", fields.object("thinking").get("budget_tokens"))
    config = fields.object("output_config")
    form = config.object("format") if config.get("format") is not None else fields.object("output_format")
    if form.values:
        chat["response_format"] = {"type": form.get("type"), "json_schema": {"schema": form.get("schema")}}
    chat["reasoning_effort"] = config.get("effort")
    return Fields(chat)


def _messages(fields: Fields) -> list[Json]:
    messages: list[Json] = []
    system = fields.get("system")
    if isinstance(system, str):
        system = [{"type": "text", "text": system}] if system else []
    if system is not None and not isinstance(system, list):
        raise fields.wrong("system", "a string or an array of text blocks")
    if system:
        messages.append({"role": "system", "content": [_unstamped(block) for block in system]})
    for i, value in enumerate(fields.array("messages")):
        if not isinstance(value, dict):
            raise bad_request(f"messages[{i}] is not an object", param=f"messages[{i}]")
        messages += _message(Fields(value, f"messages[{i}]."))
    return messages


def _unstamped(block: object) -> object:
    text = block.get("text") if isinstance(block, dict) else None
    if not isinstance(text, str) or not text.startswith(_STAMPED):
        return block
    return {"type": "text", "text": _STAMP.sub("fffff", text, count=1)}


def _message(message: Fields) -> list[Json]:
    content = message.get("content")
    role = message.string("role")
    if not isinstance(content, list):
        return [{"role": role, "content": content}]
    parts: list[Json] = []
    calls: list[Json] = []
    results: list[Json] = []
    thoughts: list[str] = []
    for i, value in enumerate(content):
        block = Fields(value if isinstance(value, dict) else {}, f"{message.param('content')}[{i}].")
        match block.get("type"):
            case "text":
                parts.append({"type": "text", "text": block.get("text")})
            case "image":
                parts.append(_image(block))
            case "tool_use":
                function = {"name": block.string("name"), "arguments": block.object("input").values}
                calls.append({"id": block.string("id"), "type": "function", "function": function})
            case "tool_result":
                said = block.get("content") or ""
                if isinstance(said, list):
                    said = [_shown(each, block.param(f"content[{j}]")) for j, each in enumerate(said)]
                results.append({"role": "tool", "tool_call_id": block.string("tool_use_id"), "content": said})
            case "thinking":
                thoughts.append(block.string("thinking"))
            case "redacted_thinking":
                pass  # nobody but its writer can read it
            case kind:
                raise bad_request(
                    f"{message.param('content')}[{i}] is of type {kind!r:.40}, expected text, image, thinking, "
                    "tool_use or tool_result",
                    param=message.param("content"),
                    code="unsupported_parameter",
                )
    spoken: Json = {"role": role, "content": parts or None}
    if calls:
        spoken["tool_calls"] = calls
    if thoughts:
        spoken["reasoning_content"] = "".join(thoughts)
    return [*results, *([spoken] if parts or calls or thoughts else [])]


def _shown(part: object, param: str) -> object:
    """What a tool shows: an image as chat has it, anything else as it is."""
    return _image(Fields(part, f"{param}.")) if isinstance(part, dict) and part.get("type") == "image" else part


def _image(block: Fields) -> Json:
    """An image as a part of chat: by its address, which may be the image itself."""
    source = block.object("source")
    if source.string("type") == "base64":
        url = f"data:{source.string('media_type', 'image/jpeg')};base64,{source.string('data')}"
    else:
        url = source.string("url")
    return {"type": "image_url", "image_url": {"url": url}}


def _tool(value: object, param: str) -> Json:
    if not isinstance(value, dict) or value.get("type") not in (None, "custom"):
        raise bad_request(
            f"{param} is none of the client's own: this server has no tools itself", param=param,
            code="unsupported_parameter",
        )  # fmt: skip
    tool = Fields(value, f"{param}.")
    schema = tool.object("input_schema").values or {"type": "object"}
    function = {"name": tool.string("name"), "description": tool.string("description"), "parameters": dict(schema)}
    return {"type": "function", "function": function}


def _choice(choice: Fields) -> Json:
    """Chat's `tool_choice`, and `parallel_tool_calls` where it is said."""
    if not choice.values:
        return {}
    kind = choice.string("type")
    if kind != "tool" and kind not in CHOICES:
        raise bad_request(f"tool_choice.type is {kind!r:.32}, expected auto, any, tool or none", "tool_choice.type")
    chosen = {"type": "function", "function": {"name": choice.string("name")}} if kind == "tool" else CHOICES[kind]
    if choice.get("disable_parallel_tool_use") is None:
        return {"tool_choice": chosen}
    return {"tool_choice": chosen, "parallel_tool_calls": not choice.boolean("disable_parallel_tool_use", False)}


def _thinking(fields: Fields) -> Json:
    """Variables of the template: whether to think, where it asks for that. How long is the model's."""
    given = dict(fields.object("chat_template_kwargs").values)
    kind = fields.object("thinking").string("type")
    if kind not in THINKS:
        expected = ", ".join(filter(None, THINKS))
        raise bad_request(f"thinking.type is {kind!r:.32}, expected one of {expected}", "thinking.type")
    return {"enable_thinking": THINKS[kind], **given} if kind else given
