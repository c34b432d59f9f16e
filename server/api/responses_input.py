"""OpenAI's responses API, the asking side: its fields in the words of chat, so that there is one way to answer.

Source: llama.cpp 0c1e570 tools/server/server-chat.cpp, server_chat_convert_responses_to_chatcmpl; openai 2.54.
"""

from typing import Any, Final

from server.api.errors import bad_request
from server.api.schema import Fields

Json = dict[str, Any]

# Fields that would change the answer and are not had, with what asks for nothing.
UNSUPPORTED: Final[dict[str, tuple[Any, ...]]] = {
    "previous_response_id": ("",), "conversation": (), "background": (False,), "prompt": (), "max_tool_calls": (),
    "moderation": (),
}  # fmt: skip
RENAMED: Final = {"max_output_tokens": "max_tokens", "top_logprobs": "top_logprobs"}


def as_chat(fields: Fields) -> Fields:
    """The request as one of chat.

    Raises:
        ApiError: an item or a tool that is not understood, or a field that is not supported.
    """
    for name, harmless in UNSUPPORTED.items():
        if fields.get(name) is not None and fields.get(name) not in harmless:
            raise bad_request(
                f"{name} is not supported by this server; leave it out", param=name, code="unsupported_parameter"
            )
    renamed = {"input", "instructions", "text", "reasoning", "tools", "tool_choice", "top_logprobs", *RENAMED}
    chat: Json = {name: value for name, value in fields.values.items() if name not in renamed}
    chat |= {new: fields.get(old) for old, new in RENAMED.items()}
    chat["messages"] = _messages(fields)
    form = fields.object("text").object("format")
    if form.values:
        schema = {"name": form.get("name"), "schema": form.get("schema")}
        chat["response_format"] = {**form.values, "json_schema": schema} if form.get("schema") else dict(form.values)
    chat["reasoning_effort"] = fields.object("reasoning").get("effort")
    chat["tools"] = [_tool(value, f"tools[{i}]") for i, value in enumerate(fields.array("tools"))] or None
    chat["tool_choice"] = fields.get("tool_choice")
    include = fields.get("include")
    if isinstance(include, list) and "message.output_text.logprobs" in include:
        chat["logprobs"] = True
    else:
        chat["top_logprobs"] = None
    return Fields(chat)


def _messages(fields: Fields) -> list[Json]:
    messages: list[Json] = []
    if fields.string("instructions"):
        messages.append({"role": "system", "content": fields.string("instructions")})
    given = fields.get("input")
    if isinstance(given, str):
        return [*messages, {"role": "user", "content": fields.unicode("input", given)}]
    if not isinstance(given, list) or not given:
        raise bad_request("input is missing or empty, expected a string or an array of items", param="input")
    for i, value in enumerate(given):
        if not isinstance(value, dict):
            raise bad_request(f"input[{i}] is not an object", param=f"input[{i}]")
        _add(messages, Fields(value, f"input[{i}]."))
    return messages


def _add(messages: list[Json], item: Fields) -> None:
    """One more item: a message, a call, what came of a call, or thoughts."""
    kind = item.string("type", "message")
    last = messages[-1] if messages and messages[-1]["role"] == "assistant" else None
    match kind:
        case "message":
            content = item.get("content")
            if item.string("role") == "assistant" and last is not None and last["content"] is None:
                last["content"] = content  # thoughts or calls came first
            else:
                messages.append({"role": item.string("role"), "content": content})
        case "function_call":
            call = {
                "id": item.string("call_id"), "type": "function",
                "function": {"name": item.string("name"), "arguments": item.string("arguments", "{}")},
            }  # fmt: skip
            if last is None:
                last = {"role": "assistant", "content": None}
                messages.append(last)
            last.setdefault("tool_calls", []).append(call)
        case "function_call_output":
            messages.append({"role": "tool", "tool_call_id": item.string("call_id"), "content": _output(item)})
        case "reasoning":
            said = item.array("content") or item.array("summary")
            parts = (Fields(part, item.param("summary.")) for part in said if isinstance(part, dict))
            thoughts = "\n".join(part.string("text") for part in parts)
            messages.append({"role": "assistant", "content": None, "reasoning_content": thoughts})
        case _:
            raise bad_request(
                f"{item.param('type')} is {kind!r:.40}, expected message, function_call, function_call_output or "
                "reasoning",
                param=item.param("type"),
                code="unsupported_parameter",
            )


def _output(item: Fields) -> Any:
    value = item.get("output")
    return "" if value is None else value


def _tool(value: object, param: str) -> Json:
    if not isinstance(value, dict) or value.get("type") != "function":
        raise bad_request(f"{param} is no function: this server has no tools of its own", param=param)
    function = {name: value[name] for name in ("name", "description", "parameters", "strict") if name in value}
    return {"type": "function", "function": function}
