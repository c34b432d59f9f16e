"""How does a model call tools? Calls as text, by the template's own way: what they look like, and a grammar of them."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from server.api.constraint import checked
from server.api.conversation.call_grammar import calls_gbnf
from server.api.conversation.style import Style
from server.api.errors import bad_request
from server.api.schema import Fields
from server.engine.sampling import Grammar

Json = dict[str, Any]


NOTHING: Final = {"type": "object", "properties": {}}  # what a function takes that has no parameters

# For templates that know of no tools.
INSTRUCTION: Final = (
    "You can call these functions, described by JSON:\n{tools}\n"
    "To call one, write exactly this, once for each call, with the function's name and its arguments{as_json}:\n{call}"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """The tools of a request. `forced`: a call must be made, of one of `callable`. `parallel`: several may be."""

    listed: tuple[Json, ...]
    callable: tuple[Json, ...]
    forced: bool
    parallel: bool
    style: Style

    @property
    def schemas(self) -> dict[str, Any]:
        """Of the parameters of the functions that may be called."""
        return {tool["function"]["name"]: tool["function"].get("parameters") or {} for tool in self.callable}

    def gbnf(self, *, alone: bool) -> str:
        """Of calls of those that may be called; `alone`: nothing stands in front of them."""
        functions = [tool["function"] for tool in self.callable]
        return calls_gbnf(self.style, functions, parallel=self.parallel, forced=alone)

    def lazy_grammar(self) -> Grammar | None:
        """It begins where a call does, so that calls are well-formed; None where nothing tells a call from words."""
        if not self.style.begin and not self.style.to:
            return None
        text = checked(self.gbnf(alone=False), "tools")
        return Grammar(text=text, lazy=True, trigger_patterns=(self._trigger,))

    @property
    def _trigger(self) -> str:
        """An expression of answers in which a call has begun; its group is what the grammar begins with."""
        style = self.style
        if style.to:
            names = "|".join(_escaped(style.to.header(tool["function"]["name"])) for tool in self.callable)
            return rf"(?:[\s\S]*?{_escaped(style.to.between)})?((?:{names})[\s\S]*)"
        word = style.begins[0]
        begin = word if word.startswith(("<", "[")) else style.begin
        return rf"[\s\S]*?({_escaped(begin)}[\s\S]*)"


def _escaped(text: str) -> str:
    return "".join(f"\\{c}" if c in r"\[](){}.*+?^$|" else c for c in text)


def read_tools(fields: Fields, writes: Callable[[], tuple[Style, bool]]) -> Tools | None:
    """The tools of a request and whether one must be called; None where none may be.

    `writes`: how the template's model writes calls, and whether an answer may have several, where the request does not
    say.

    Source: llama.cpp 0c1e570 tools/server/server-common.cpp, oaicompat_chat_params_parse (parallel_tool_calls).

    Raises:
        ApiError: a tool that is none, a choice that names none of them.
    """
    tools = [_tool(value, f"tools[{i}]") for i, value in enumerate(fields.array("tools"))]
    choice = fields.get("tool_choice")
    named: list[str] | None = None
    if isinstance(choice, dict):
        choice, named = _chosen(fields.object("tool_choice"))
    elif choice not in (None, "auto", "none", "required"):
        raise bad_request(
            f"tool_choice is {choice!r:.32}, expected none, auto, required or a function's name", param="tool_choice"
        )
    if not tools:
        if choice == "required":
            raise bad_request("tool_choice asks for a call, and there are no tools", param="tool_choice")
        return None
    if choice == "none":
        return None
    known = [tool["function"]["name"] for tool in tools]
    for name in named or ():
        if name not in known:
            raise bad_request(f"tool_choice names {name!r}, expected one of {', '.join(known)}", param="tool_choice")
    style, several = writes()
    parallel = fields.get("parallel_tool_calls") is None and several
    allowed = [tool for tool in tools if named is None or tool["function"]["name"] in named]
    return Tools(
        listed=tuple(tools),
        callable=tuple(allowed),
        forced=choice == "required",
        parallel=fields.boolean("parallel_tool_calls", parallel) and (named is None or len(named) > 1),
        style=style,
    )


def _chosen(choice: Fields) -> tuple[str, list[str] | None]:
    """What an object of `tool_choice` asks for: none, auto or required, and of which functions alone (None: of any).

    A function, OpenAI's list of those that are allowed, or an object that says by its type what a string says, too.
    """
    kind = choice.string("type", "function")
    if kind in ("none", "auto", "required"):
        return kind, None
    if kind == "function":
        return "required", [choice.object("function").string("name") or choice.string("name")]
    if kind != "allowed_tools":
        raise bad_request(f"tool_choice.type is {kind!r:.32}, expected function or allowed_tools", "tool_choice.type")
    listed = choice.object("allowed_tools") if choice.get("allowed_tools") is not None else choice  # chat, responses
    mode = listed.string("mode", "auto")
    if mode not in ("auto", "required"):
        raise bad_request(f"{listed.param('mode')} is {mode!r:.32}, expected auto or required", listed.param("mode"))
    names = []
    for i, value in enumerate(listed.array("tools")):
        tool = Fields(value if isinstance(value, dict) else {}, f"{listed.param('tools')}[{i}].")
        names.append(tool.object("function").string("name") or tool.string("name"))
    if not names:
        raise bad_request(f"{listed.param('tools')} is missing or empty", param=listed.param("tools"))
    return mode, names


def as_shown(tool: Json, *, bare: bool = True) -> Json:
    """A tool as templates get it: what it is called, says and takes, each of them there.

    `bare`: what takes nothing has no schema, as in llama-server; else one of an object without properties.

    Source: llama.cpp 0c1e570 common/chat.cpp, common_chat_tools_parse_oaicompat, common_chat_tools_to_json_oaicompat.
    """
    function = tool["function"]
    shown = {
        "name": function["name"], "description": function.get("description") or "",
        "parameters": function.get("parameters") or ({} if bare else dict(NOTHING)),
    }  # fmt: skip
    return {"type": "function", "function": shown}


def instruction(tools: Sequence[Json], style: Style) -> str:
    """What to tell a model whose template knows of no tools: what there are, and how it writes calls."""
    return INSTRUCTION.format(
        tools="\n".join(json.dumps(tool["function"], ensure_ascii=False) for tool in tools),
        as_json=" as JSON" if style.notation == "json" else "", call=style.example,
    )  # fmt: skip


def _tool(value: object, param: str) -> Json:
    function = value.get("function") if isinstance(value, dict) else None
    if not isinstance(value, dict) or value.get("type", "function") != "function" or not isinstance(function, dict):
        raise bad_request(f"{param} is no function: expected {{'type': 'function', 'function': ...}}", param=param)
    if not isinstance(function.get("name"), str) or not function["name"]:
        raise bad_request(f"{param}.function.name is missing", param=f"{param}.function.name")
    return {**value, "type": "function"}
