"""Is the conversation what it should be? Messages as dictionaries whose contents are strings."""

from typing import Any, Final

from server.api.errors import bad_request
from server.api.media import TYPES, Media, joined_with_marks
from server.api.schema import Fields

Json = dict[str, Any]
_OLD: Final = ("assistant", "function")  # roles of messages that may say of calls in words that tools had once


def read_messages(fields: Fields, media: Media) -> list[Json]:
    """The conversation, each content a string or text parts. Keys that only the template knows are handed on.

    Images and sounds are added to `media`; where a content has some it is a string, with a mark for each.

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
        if value["role"] in _OLD and (value.get("function_call") or value["role"] == "function"):
            message = Fields(value := _as_tools(message, index), f"messages[{index}].")
        _check_calls(message)
        message.string("reasoning_content")
        messages.append({**value, "content": _content(message, media)})
    return messages


def _as_tools(message: Fields, index: int) -> Json:
    """A call, or what came of it, in the words of tools; each result is that of the message in front.

    Source: OpenAI's API reference, deprecated: `function_call` in messages of the assistant, and the role `function`.
    """
    others = {name: value for name, value in message.values.items() if name != "function_call"}
    if message.string("role") == "function":
        return {**others, "role": "tool", "tool_call_id": f"call_{index - 1}"}
    function = dict(message.object("function_call").values)
    return {**others, "tool_calls": [{"id": f"call_{index}", "type": "function", "function": function}]}


def _check_calls(message: Fields) -> None:
    """Raises ApiError: `tool_calls` are no calls of functions."""
    for index, value in enumerate(message.array("tool_calls")):
        param = message.param(f"tool_calls[{index}]")
        if not isinstance(value, dict):
            raise bad_request(f"{param} is not an object", param=param)
        Fields(value, f"{param}.").object("function").string("name")


def text_of(content: str | list[Json], between: str = "\n") -> str:
    """A content as one string, its parts joined as llama-server joins them for templates that know of strings alone.

    Source: llama.cpp 0c1e570 common/chat.cpp, messages_inp_normalizer::concat_content_parts.
    """
    return content if isinstance(content, str) else between.join(part["text"] for part in content)


def parts_of(content: str | list[Json]) -> list[Json]:
    """A content as parts."""
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _content(message: Fields, media: Media) -> str | list[Json]:
    """A message's content: a string, or text parts.

    null is no text; an assistant's message may be without the field.
    """
    value = message.get("content")
    if value is None and message.string("role") == "assistant":
        value = message.get("refusal")
    if value is None:
        if "content" in message.values or message.get("tool_calls") or message.string("role") == "assistant":
            return ""
        raise bad_request(f"{message.param('content')} is missing", param=message.param("content"))
    if isinstance(value, str):
        return message.unicode("content", value)
    if not isinstance(value, list):
        raise message.wrong("content", "a string or an array of parts")
    parts = [_part(part, message.param(f"content[{index}]"), media) for index, part in enumerate(value)]
    if any(is_mark for _, is_mark in parts):
        if message.string("role") == "assistant":
            raise bad_request(f"{message.param('content')} has an image or sound, which are said to the assistant")
        return joined_with_marks(parts)
    return [{"type": "text", "text": text} for text, _ in parts]


def _part(value: object, param: str, media: Media) -> tuple[str, bool]:
    """A part's text, or the mark of an image or sound, and whether it is one."""
    if not isinstance(value, dict):
        raise bad_request(f"{param} is not an object", param=param)
    part = Fields(value, f"{param}.")
    if part.get("type") == "refusal":  # what an assistant said instead of an answer
        return part.string("refusal"), False
    if isinstance(part.get("type"), str) and part.get("type") in TYPES:
        return media.part(part), True
    if part.get("type") not in ("text", "input_text", "output_text"):
        raise bad_request(
            f"{param} is of type {part.get('type')!r}, expected text, image_url or input_audio",
            param=param,
            code="unsupported_parameter",
        )
    if part.get("text") is None:
        raise bad_request(f"{param}.text is missing", param=f"{param}.text")
    return part.string("text"), False
