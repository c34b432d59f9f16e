"""How does a model call tools? Calls as text, by the template's own way: what they look like, and a grammar of them."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from server.api.constraint import checked, schema_grammar
from server.api.errors import bad_request
from server.api.schema import Fields
from server.engine.sampling import Grammar

Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """Calls stand between `begin` and `end`, each a JSON object with a name and `arguments` under that key.

    With `listed` they are an array behind one `begin`. `control`: `begin` is a control token, whose text must be shown.
    """

    begin: str
    end: str = ""
    arguments: str = "arguments"
    listed: bool = False
    control: bool = False


HERMES: Final = Style(begin="<tool_call>\n", end="\n</tool_call>")
MISTRAL: Final = Style(begin="[TOOL_CALLS]", listed=True, control=True)
LLAMA: Final = Style(begin="", arguments="parameters")

# What shows in a template whose model was trained on a style; the first that is found counts.
SIGNS: Final = (("<tool_call>", HERMES), ("[TOOL_CALLS]", MISTRAL), ("python_tag", LLAMA), ('"parameters": ', LLAMA))

# For templates that know of no tools.
INSTRUCTION: Final = (
    "You can call these functions, described by JSON:\n{tools}\n"
    "To call one, write exactly this, once for each call, with the function's name and its arguments as JSON:\n"
    '<tool_call>\n{{"name": "...", "arguments": {{...}}}}\n</tool_call>'
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
    def names(self) -> frozenset[str]:
        """The functions that may be called."""
        return frozenset(tool["function"]["name"] for tool in self.callable)

    def grammar(self) -> Grammar | None:
        """Of calls alone where one is forced; else it begins where a call does, so that calls are well-formed.

        None where nothing tells a call from an answer.
        """
        if not self.forced and not self.style.begin:
            return None
        text = checked(self._gbnf(), "tools")
        if self.forced:
            return Grammar(text=text)
        begin = "".join(f"\\{c}" if c in r"\[](){}.*+?^$|" else c for c in self.style.begin.strip())
        return Grammar(text=text, lazy=True, trigger_patterns=(rf"[\s\S]*?({begin}[\s\S]*)",))

    def _gbnf(self) -> str:
        style = self.style
        rules, names = [], []
        for i, tool in enumerate(self.callable):
            function = tool["function"]
            schema = function.get("parameters") or {"type": "object"}
            for line in schema_grammar(schema, "tools").splitlines():
                name, _, body = line.partition("::=")
                if body:
                    rules.append(f"{_prefixed(name.strip(), i)} ::={_renamed(body, i)}")
            head = json.dumps(f'{{"name": {json.dumps(function["name"])}, "{style.arguments}": ')
            rules.append(f'call-{i} ::= {head} {_prefixed("root", i)} "}}"')
            names.append(f"call-{i}")
        one = f"({' | '.join(names)})"
        begin, end = json.dumps(style.begin), json.dumps(style.end)
        if style.listed:
            more = f' (", " {one})*' if self.parallel else ""
            root = f'{begin} "[" {one}{more} "]"'
        else:
            wrapped = " ".join(part for part in (begin if style.begin else "", one, end if style.end else "") if part)
            root = f'{wrapped} ("\\n" {wrapped})*' if self.parallel and style.begin else wrapped
        return "\n".join((f"root ::= {root}", *rules))


def _prefixed(name: str, i: int) -> str:
    return f"tool{i}-{name}"


def _renamed(body: str, i: int) -> str:
    """The rule's body with the names of other rules prefixed; literals and classes stay."""
    out, at = [], 0
    while at < len(body):
        c = body[at]
        if c in '"[':
            close, end = ('"' if c == '"' else "]"), at + 1
            while body[end] != close:
                end += 2 if body[end] == "\\" else 1
            out.append(body[at : end + 1])
            at = end + 1
        elif c.isalpha():
            end = at
            while end < len(body) and (body[end].isalnum() or body[end] in "-_"):
                end += 1
            out.append(_prefixed(body[at:end], i))
            at = end
        elif c == "{":  # a count
            end = body.index("}", at)
            out.append(body[at : end + 1])
            at = end + 1
        else:
            out.append(c)
            at += 1
    return "".join(out)


def read_tools(fields: Fields, template: str, several_calls: Callable[[], bool]) -> Tools | None:
    """The tools of a request and whether one must be called; None where none may be.

    `several_calls`: may an answer have several, where the request does not say?

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
    parallel = fields.get("parallel_tool_calls") is None and several_calls()
    allowed = [tool for tool in tools if named is None or tool["function"]["name"] in named]
    return Tools(
        listed=tuple(tools),
        callable=tuple(allowed),
        forced=choice == "required",
        parallel=fields.boolean("parallel_tool_calls", parallel) and (named is None or len(named) > 1),
        style=style_of(template),
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


def style_of(template: str) -> Style:
    """How the template's model writes calls."""
    return next((style for sign, style in SIGNS if sign in template), HERMES)


def as_shown(tool: Json) -> Json:
    """A tool as templates get it: what it is called, says and takes, each of them there.

    Source: llama.cpp 0c1e570 common/chat.cpp, common_chat_tools_parse_oaicompat, common_chat_tools_to_json_oaicompat.
    """
    function = tool["function"]
    shown = {
        "name": function["name"], "description": function.get("description") or "",
        "parameters": function.get("parameters") or {},
    }  # fmt: skip
    return {"type": "function", "function": shown}


def instruction(tools: Sequence[Json]) -> str:
    """What to tell a model whose template knows of no tools."""
    return INSTRUCTION.format(tools="\n".join(json.dumps(tool["function"], ensure_ascii=False) for tool in tools))


def _tool(value: object, param: str) -> Json:
    function = value.get("function") if isinstance(value, dict) else None
    if not isinstance(value, dict) or value.get("type", "function") != "function" or not isinstance(function, dict):
        raise bad_request(f"{param} is no function: expected {{'type': 'function', 'function': ...}}", param=param)
    if not isinstance(function.get("name"), str) or not function["name"]:
        raise bad_request(f"{param}.function.name is missing", param=f"{param}.function.name")
    return {**value, "type": "function"}
