"""Where in an answer's text are tool calls? Read as the text comes, in OpenAI's pieces.

Content is handed on at once, except what may be the beginning of a call. A call's name is told when it is complete, its
arguments as they come.
"""

import re
import uuid
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, Final

from ggufphys.units import parse_json
from server.api.conversation.tools import Style

Json = dict[str, Any]
_BLANK: Final = " \t\r\n"
_HEAD: Final = re.compile(r'\{\s*"name"\s*:\s*"(?P<name>(?:[^"\\]|\\.)*)(?P<closed>"?)(?P<rest>.*)', re.DOTALL)


@dataclass(slots=True)
class Calls:
    """A reader of one answer. `feed` gives deltas; `content` and `calls` hold all that came.

    `names` are the functions': where nothing marks a call, one that was cut off is told from an answer by them.
    """

    style: Style
    names: Collection[str] = ()
    content: str = ""
    calls: list[Json] = field(default_factory=list)
    _held: str = ""  # read and not told
    _inside: bool = False  # a call, or between calls
    _open: bool = False  # a call's arguments are coming
    _depth: int = 0
    _quoted: bool = False
    _escaped: bool = False

    def feed(self, text: str) -> list[Json]:
        """What a piece of text adds: deltas with `content` or `tool_calls`."""
        self._held += text
        deltas: list[Json] = []
        while self._step(deltas):
            pass
        return _merged(deltas)

    def close(self) -> list[Json]:
        """No more text comes: what was held back is content, but for a call that was cut off before its arguments."""
        name = _cut_off(self._head_text()) if self._inside and not self._open else None
        if name is not None and (self.style.begin or name in self.names):
            self._held = ""
            return [self._call(name)] if name else []
        if self._held.strip(_BLANK) and not self._open and not (self._inside and self.calls):
            rest, self._held = self._held, ""
            begun = self.style.begin if self._inside and not self.calls else ""
            self.content += begun + rest
            return [{"content": begun + rest}]
        return []

    def _step(self, deltas: list[Json]) -> bool:
        """Read on a little; whether anything was read."""
        if self._open:
            return self._arguments(deltas)
        if self._inside:
            return self._head(deltas)
        return self._text(deltas)

    def _text(self, deltas: list[Json]) -> bool:
        begin = self.style.begin.strip()
        if not begin:  # a call is the whole answer, or there is none
            if not self._held.strip(_BLANK):
                return False
            self._inside = self._held.lstrip(_BLANK).startswith("{") and not self.content
            return self._inside or self._say(len(self._held), deltas)
        if self.calls:  # blanks between calls are no content
            self._held = self._held.lstrip(_BLANK)
        at = self._held.find(begin)
        if at >= 0:
            self._say(at if self._held[:at].strip(_BLANK) else 0, deltas)
            self._held = self._held[self._held.find(begin) + len(begin) :]
            self._inside = True
            return True
        keep = next(
            (n for n in range(min(len(begin) - 1, len(self._held)), 0, -1) if begin.startswith(self._held[-n:])), 0
        )
        return self._say(len(self._held) - keep, deltas)

    def _say(self, n: int, deltas: list[Json]) -> bool:
        said, self._held = self._held[:n], self._held[n:]
        self.content += said
        if said:
            deltas.append({"content": said})
        return False

    def _head(self, deltas: list[Json]) -> bool:
        """The beginning of a call up to its arguments; or what stands behind one."""
        held = self._head_text()
        end = self.style.end.strip()
        if end and held.startswith(end):
            self._held, self._inside = held[len(end) :].lstrip(_BLANK), False
            return True
        if not held.startswith("{"):
            return self._not_a_call(held, end)
        found = _name_and_start(held, self.style.arguments)
        if found is None:
            return False
        name, start = found
        deltas.append(self._call(name))
        self._held, self._open, self._depth = held[start:], True, 0
        self._quoted = self._escaped = False
        return True

    def _head_text(self) -> str:
        """What is held of a call, from its brace on."""
        return self._held.lstrip(_BLANK + (",[]}" if self.calls else "["))

    def _call(self, name: str) -> Json:
        """Begin a call: the delta that tells its name."""
        index = len(self.calls)
        call = {"id": f"call_{uuid.uuid4().hex[:24]}", "type": "function", "function": {"name": name, "arguments": ""}}
        self.calls.append(call)
        return {"tool_calls": [{"index": index, **call, "function": {"name": name, "arguments": ""}}]}

    def _not_a_call(self, held: str, end: str) -> bool:
        """More must come, or it is text behind the calls; nothing is read on here."""
        if held and self.calls and not end:
            self._held = ""
        return False

    def _arguments(self, deltas: list[Json]) -> bool:
        for i, c in enumerate(self._held):
            if self._quoted:
                self._quoted = self._escaped or c != '"'
                self._escaped = c == "\\" and not self._escaped
                continue
            if c == '"':
                self._quoted, self._escaped = True, False
            elif c in "{[":
                self._depth += 1
            elif c in "}]":
                self._depth -= 1
                if self._depth <= 0:
                    self._tell(i + (self._depth == 0), deltas)
                    self._held = self._held.lstrip(_BLANK).removeprefix("}")
                    self._open = False
                    return True
        self._tell(len(self._held), deltas)
        return False

    def _tell(self, n: int, deltas: list[Json]) -> None:
        said, self._held = self._held[:n], self._held[n:]
        if said:
            self.calls[-1]["function"]["arguments"] += said
            deltas.append({"tool_calls": [{"index": len(self.calls) - 1, "function": {"arguments": said}}]})


def _name_and_start(text: str, arguments: str) -> tuple[str, int] | None:
    """The name in the beginning of a call, and where its arguments begin; None while they have not come."""
    at = text.find(f'"{arguments}"')
    other = "parameters" if arguments == "arguments" else "arguments"
    if at < 0:
        at, arguments = text.find(f'"{other}"'), other
    if at < 0:
        return None
    start = text.find(":", at + len(arguments) + 2)
    value = text[start + 1 :].lstrip(_BLANK) if start >= 0 else ""
    if not value:
        return None
    try:
        name = parse_json(text[:at].rstrip(_BLANK + ",") + "}").get("name")
    except (ValueError, AttributeError):
        return None
    return (str(name), len(text) - len(value)) if name else None


def _cut_off(text: str) -> str | None:
    """The name in a call that ends in front of its arguments, empty where that is cut off, too; None: it is no such.

    Source: llama.cpp 0c1e570 common/chat-peg-parser.cpp, common_chat_peg_mapper (a call is told from its name on).
    """
    found = _HEAD.fullmatch(text)
    if found is None:
        return "" if '{"name":"'.startswith("".join(text.split())) else None
    if not found["closed"]:
        return ""
    rest = "".join(found["rest"].split())
    if not any(f',"{key}":'.startswith(rest) for key in ("arguments", "parameters")):
        return None
    try:
        return str(parse_json(f'"{found["name"]}"'))
    except ValueError:  # no name that JSON can spell
        return None


def _merged(deltas: list[Json]) -> list[Json]:
    """Neighbours that add to the same arguments as one."""
    found: list[Json] = []
    for delta in deltas:
        last = found[-1].get("tool_calls") if found else None
        now = delta.get("tool_calls")
        if last and now and last[0]["index"] == now[0]["index"] and "name" not in now[0]["function"]:
            last[0]["function"]["arguments"] += now[0]["function"]["arguments"]
        else:
            found.append(delta)
    return found
