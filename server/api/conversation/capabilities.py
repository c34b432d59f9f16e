"""What does a model's chat template understand, and how is a conversation put for it?"""

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from ggufphys.units import parse_json
from server.api.conversation.style import Style
from server.api.messages import parts_of, text_of

Json = dict[str, Any]
_MARK = re.compile(r"<[^<>]*>|\[[^\[\]]*\]")
Thoughts = Literal["", "reasoning_content", "thinking", "block"]
"""Where a template looks for an answer's thoughts: in a key beside its words, or in a block among them; empty: nowhere.

Source: llama.cpp 0c1e570 common/parsers: lfm2.cpp, gpt-oss.cpp (thinking), ministral3.cpp (blocks).
"""


@dataclass(frozen=True, slots=True)
class Around:
    """What a template writes in front of an answer's thoughts, and between them and its words; empty: it has none."""

    start: str = ""
    between: str = ""

    @property
    def marks(self) -> tuple[str, str] | None:
        """What an answer's thoughts begin and end with; None: nothing is known of them."""
        start, end = self.start.strip(), self.between.strip()
        found = _MARK.match(end)
        return (start, found[0] if found else end) if start and end else None


@dataclass(frozen=True, slots=True)
class Turn:
    """What a template asks for an answer with, and what it ends one with; empty: nothing, or it is not known."""

    asks: str = ""
    ends: str = ""

    def asked_for(self, text: str) -> str:
        """The conversation, and what asks for an answer, where the template has ended a turn and not begun another.

        Gemma 4's do so behind a call that was made beside words.

        Source: llama.cpp 0c1e570 common/parsers/gemma4.cpp, common_chat_params_init_gemma4.
        """
        return text + self.asks if self.asks and self.ends.strip() and text.endswith(self.ends) else text


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a template does with what it is given.

    `typed`: contents must be arrays of parts, strings are lost. `parts`: the roles whose contents may be arrays, too.
    `system`: the system's message is shown. `developer`: that role is shown as something else than the system's.
    `tools`: tools are shown; `bare_tools`: those without a schema, too. `object_arguments`: arguments of earlier calls
    must be objects, not their JSON as a string; `text_arguments`: they must be that string. `several_calls`: two calls
    of one answer are shown. `thoughts`: where those of earlier answers are looked for; `calls_or_words`: a call that
    has thoughts must be without words. `responses`: what came of calls stands in the message that made them, not in
    messages of tools. `around`: what stands around an answer's thoughts. `turn`: how one is asked for, and how it ends.
    `calls`: how they are written, where the template shows some. `channels`: answers are messages on channels.
    """

    typed: bool = False
    parts: frozenset[str] = frozenset()
    system: bool = True
    developer: bool = False
    tools: bool = False
    bare_tools: bool = True
    object_arguments: bool = False
    text_arguments: bool = False
    several_calls: bool = False
    thoughts: Thoughts = ""
    calls_or_words: bool = False
    responses: bool = False
    around: Around = Around()
    turn: Turn = Turn()
    calls: Style | None = None
    channels: bool = False

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
        if self.responses:
            found = _with_responses(found)
        for message in found:
            if "content" in message:
                message["content"] = self._content(message)
            if message.get("reasoning_content"):
                self._think(message)
        return found

    def as_llama_server(self) -> dict[str, bool]:
        """In llama-server's words (`chat_template_caps`), those that are asked here."""
        return {
            "supports_string_content": not self.typed, "supports_typed_content": self.typed or "user" in self.parts,
            "supports_system_role": self.system, "supports_tools": self.tools,
            "supports_object_arguments": self.object_arguments, "supports_parallel_tool_calls": self.several_calls,
        }  # fmt: skip

    def _call(self, call: Mapping[str, Any]) -> Json:
        function = dict(call.get("function") or {})
        arguments = function.get("arguments", "{}")
        if self.object_arguments and isinstance(arguments, str):
            with suppress(ValueError):  # else as it was said: the template will do with it what it does
                function["arguments"] = parse_json(arguments or "{}")
        if self.text_arguments and not isinstance(arguments, str):
            function["arguments"] = json.dumps(arguments, ensure_ascii=False, separators=(",", ":"))
        return {"type": "function", **call, "function": function}

    def _content(self, message: Mapping[str, Any]) -> str | list[Json]:
        content = message["content"]
        if self.typed:
            return parts_of(content)
        return content if message["role"] in self.parts else text_of(content)

    def _think(self, message: Json) -> None:
        """Put thoughts where they are looked for."""
        if self.thoughts == "thinking":
            message["thinking"] = message["reasoning_content"]
        elif self.thoughts == "block":
            block = {"type": "thinking", "thinking": message.pop("reasoning_content")}
            message["content"] = [block, *parts_of(message.get("content", ""))]
        if self.calls_or_words and message.get("tool_calls"):
            message.pop("content", None)


def _without_system(messages: list[Json]) -> list[Json]:
    said = [text_of(message["content"]) for message in messages if message["role"] == "system"]
    others = [message for message in messages if message["role"] != "system"]
    if said:
        front = "\n".join(said)  # llama.cpp 0c1e570 common/chat.cpp, system_message_not_supported
        first = next((message for message in others if message["role"] == "user"), None)
        if first is None:
            others.insert(0, {"role": "user", "content": front})
        else:
            first["content"] = f"{front}\n{text_of(first['content'])}"
    return others


def _with_responses(messages: list[Json]) -> list[Json]:
    """What came of calls, and the words behind that, in the message of the calls.

    Source: llama.cpp 0c1e570 common/parsers/gemma4.cpp, gemma4_model_turn_builder.
    """
    found: list[Json] = []
    for message in messages:
        last = found[-1] if found else {}
        calls = last.get("tool_calls") or []
        if message["role"] == "tool" and calls:
            responses = last.setdefault("tool_responses", [])
            of = calls[len(responses)]["function"] if len(responses) < len(calls) else {}
            name = of.get("name") or message.get("tool_call_id", "")
            responses.append({"name": name, "response": _read(message["content"])})
        elif message["role"] == "assistant" and last.get("tool_responses") and not message.get("tool_calls"):
            last["content"] = message["content"]
        else:
            if message.get("tool_calls"):  # its words come behind the results, or never: the template has no place
                message = {name: value for name, value in message.items() if name != "content"}
            found.append(message)
    return found


def _read(content: str | list[Json]) -> Any:
    """A tool's JSON as the value that it is, anything else as it was said."""
    if isinstance(content, str):
        with suppress(ValueError):
            return parse_json(content)
    return content
