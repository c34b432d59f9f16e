"""What does a model's chat template understand? Asked once, by rendering small conversations."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ggufphys.units import parse_json

Json = dict[str, Any]
Render = Callable[[Sequence[Mapping[str, Any]], Mapping[str, Any]], str | None]
"""The text of messages with further names, None where the template fails or refuses."""

_SAID = "needle in a haystack"
_HAY = {"type": "object", "properties": {"hay": {"type": "string", "description": "d"}}, "required": ["hay"]}
_TOOL = {"type": "function", "function": {"name": "pitchfork", "description": "d", "parameters": _HAY}}  # all of a tool
_WRITTEN_OUT = re.compile(r"""["']needle["']\s*:\s*1""")  # an object as JSON, or as Python shows it


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a template does with what it is given.

    `typed`: contents must be arrays of parts, strings are lost. `system`: the system's message is shown. `developer`:
    that role is shown as something else than the system's. `tools`: tools are shown. `object_arguments`: arguments of
    earlier calls must be objects, not their JSON as a string. `several_calls`: so are two calls of one answer.
    """

    typed: bool = False
    system: bool = True
    developer: bool = False
    tools: bool = False
    object_arguments: bool = False
    several_calls: bool = False

    def messages(self, messages: Sequence[Mapping[str, Any]]) -> list[Json]:
        """The conversation as the template understands it.

        `developer` is OpenAI's newer word for `system`. What a system says to a template without such a role stands in
        front of the user's first words.
        """
        found = [dict(message) for message in messages]
        for message in found:
            if message["role"] == "developer" and not self.developer:
                message["role"] = "system"
            if message.get("tool_calls"):
                message["tool_calls"] = [self._call(call) for call in message["tool_calls"]]
        if not self.system:
            found = _without_system(found)
        if self.typed:
            for message in found:
                message["content"] = [{"type": "text", "text": message["content"]}]
        return found

    def as_llama_server(self) -> dict[str, bool]:
        """In llama-server's words (`chat_template_caps`), those that are asked here."""
        return {
            "supports_string_content": not self.typed, "supports_typed_content": self.typed,
            "supports_system_role": self.system, "supports_tools": self.tools,
            "supports_object_arguments": self.object_arguments, "supports_parallel_tool_calls": self.several_calls,
        }  # fmt: skip

    def _call(self, call: Mapping[str, Any]) -> Json:
        function = dict(call.get("function") or {})
        arguments = function.get("arguments", "{}")
        if self.object_arguments and isinstance(arguments, str):
            with suppress(ValueError):  # else as it was said: the template will do with it what it does
                function["arguments"] = parse_json(arguments or "{}")
        return {"type": "function", **call, "function": function}


def with_a_tool(render: Render) -> Render:
    """Conversations with a tool at hand, for a template that is used for no others."""
    return lambda messages, variables: render(messages, {"tools": [_TOOL], **variables})


def probe(render: Render) -> Capabilities:
    """Find out."""
    user = {"role": "user", "content": _SAID}
    plain = _shows(render, [user])
    typed = not plain and _shows(render, [{"role": "user", "content": [{"type": "text", "text": _SAID}]}])

    def content(text: str) -> Any:
        return [{"type": "text", "text": text}] if typed else text

    question = {"role": "user", "content": content("question")}
    system = _shows(render, [{"role": "system", "content": content(_SAID)}, question])
    as_developer = render([{"role": "developer", "content": content(_SAID)}, question], {})
    as_other = render([{"role": "somebody", "content": content(_SAID)}, question], {})
    developer = as_developer is not None and _SAID in as_developer and "developer" in as_developer
    if developer and as_other is not None and as_other.replace("somebody", "developer") == as_developer:
        developer = False  # it would show any word as a role
    tools = "pitchfork" in (render([question], {"tools": [_TOOL]}) or "")
    return Capabilities(
        typed=typed, system=system, developer=developer, tools=tools,
        object_arguments=_wants_objects(render, question, content("")),
        several_calls=_shows_two_calls(render, question, content("")),
    )  # fmt: skip


def _shows(render: Render, messages: Sequence[Mapping[str, Any]]) -> bool:
    return _SAID in (render(messages, {}) or "")


def _wants_objects(render: Render, question: Json, empty: Any) -> bool:
    """Are a call's arguments shown when they come as an object, and else quoted, not at all, or not in the model's way?

    A template that takes both may write names and values in words of its own, which it cannot take from a text.
    """
    as_object = _with_calls(render, question, empty, {"needle": 1})
    if "needle" not in as_object:
        return False
    as_string = _with_calls(render, question, empty, '{"needle": 1}')
    return '{"needle": 1}' not in as_string or not _WRITTEN_OUT.search(as_object)


def _shows_two_calls(render: Render, question: Json, empty: Any) -> bool:
    """Are both of two calls shown, whose arguments are an object or its JSON?"""
    both = ({"needle": 1}, {"haystack": 1})
    as_objects = _with_calls(render, question, empty, *both)
    shown = as_objects or _with_calls(render, question, empty, *map(json.dumps, both))
    return "needle" in shown and "haystack" in shown


def _with_calls(render: Render, question: Json, empty: Any, *arguments: Any) -> str:
    """A conversation with calls of these arguments, and their results; nothing where the template refuses it."""
    ids = [f"call0000{i}" for i in range(len(arguments))]
    calls = [
        {"id": id, "type": "function", "function": {"name": "f", "arguments": each}}
        for id, each in zip(ids, arguments, strict=True)
    ]
    answer = {"role": "assistant", "content": empty, "tool_calls": calls}
    results = [{"role": "tool", "content": empty or "r", "tool_call_id": id, "name": "f"} for id in ids]
    return render([question, answer, *results], {}) or ""


def _without_system(messages: list[Json]) -> list[Json]:
    said = [message["content"] for message in messages if message["role"] == "system"]
    others = [message for message in messages if message["role"] != "system"]
    if said:
        front = "\n".join(said)  # llama.cpp 0c1e570 common/chat.cpp, system_message_not_supported
        first = next((message for message in others if message["role"] == "user"), None)
        if first is None:
            others.insert(0, {"role": "user", "content": front})
        else:
            first["content"] = f"{front}\n{first['content']}"
    return others
