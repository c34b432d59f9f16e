"""Which texts are calls of these tools? A grammar in GBNF, by the way that the model writes calls."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from server.api.constraint import schema_grammar
from server.api.conversation.arguments import ITEM, properties_of, says_strings
from server.api.conversation.style import QUOTE, Mark, Style, Tags
from server.api.gbnf import prefixed

Json = dict[str, Any]
_SHARED: Final = ("$defs", "definitions")
_PLAIN: Final = {"type", "properties", "required", "title", "description", "$schema"}  # no word of other properties
_GEMMA: Final = {
    "gemma-value": "gemma-string | gemma-plain | gemma-array | gemma-object",
    "gemma-plain": '"true" | "false" | "null" | "-"? [0-9]+ ("." [0-9]+)? ([eE] [-+]? [0-9]+)?',
    "gemma-array": '"[" (gemma-value ("," " "? gemma-value)*)? "]"',
    "gemma-object": '"{" (gemma-key ":" gemma-value ("," gemma-key ":" gemma-value)*)? "}"',
    "gemma-key": r'[^{}:,<>|" \n]+',
}
# Source: llama.cpp 0c1e570 common/parsers/gpt-oss.cpp, tool_in_role and tool_in_channel.
_TO_CHANNEL: Final = r"""("<|start|>assistant")? ("<|channel|>" ("commentary" | "analysis"))? " " """.strip()
_OF_CHANNEL: Final = (
    r"""("<|channel|>" ("commentary" | "analysis"))? (" "? "<|constrain|>"? "json")? "<|message|>" """.strip()
)
_PYTHON_STRING: Final = r"""("'" ([^'\\\n] | "\\" [^\n])* "'" | "\"" ([^"\\\n] | "\\" [^\n])* "\"")"""


def calls_gbnf(style: Style, functions: Sequence[Json], *, parallel: bool, forced: bool) -> str:
    """GBNF of calls of these functions, one or, in parallel, several; `forced`: they are the whole answer.

    Raises:
        ApiError: no grammar can be made of a schema.
    """
    rules = _Rules(style)
    for i, function in enumerate(functions):
        rules.add(i, function)
    front = f"{_TO_CHANNEL} " if style.channels and forced else ""
    return "\n".join((f"root ::= {front}{rules.root(len(functions), parallel=parallel)}", *rules.lines))


@dataclass(slots=True)
class _Rules:
    """Rules of functions, as they are added."""

    style: Style
    lines: list[str] = field(default_factory=list)
    _ends: dict[str, str] = field(default_factory=dict)

    def root(self, n: int, *, parallel: bool) -> str:
        """A call or more, with what stands around them."""
        style, one = self.style, f"({' | '.join(f'call-{i}' for i in range(n))})"
        begin, end = style.section
        is_parallel = parallel and bool(style.begin or style.to)
        more = f"({_literal(style.between)} {one})*".replace("( ", "(") if is_parallel else ""
        return " ".join(filter(None, (_literal(begin), one, more, _literal(end))))

    def add(self, i: int, function: Json) -> None:
        """The rules of a function's calls."""
        style, name = self.style, function["name"]
        schema = _parameters(function)
        spelled = json.dumps(name)[1:-1] if style.whole else name
        match style.notation:
            case "tagged":
                arguments = self._tagged(i, schema)
            case "gemma":
                arguments = self._gemma(i, schema)
            case "python":
                arguments = self._python(i, schema)
            case _:
                arguments = self._schema(schema, f"tool{i}")
        named = _OF_CHANNEL if style.channels else self._mark(style.named)
        header = _literal(style.to.header(name)) if style.to else ""
        if style.to and style.notation == "json":
            self.lines.append(f"call-{i} ::= {header} {arguments}")
            return
        parts = (header, self._mark(style.open), _literal(spelled), named, arguments, self._mark(style.close))
        self.lines.append(f"call-{i} ::= {' '.join(filter(None, parts))}")

    def _mark(self, mark: Mark) -> str:
        if len(mark) > 1 and not any(line.startswith("another ") for line in self.lines):
            self.lines.append("another ::= [a-zA-Z0-9_-]+")
        return " another ".join(filter(None, map(_literal, mark)))

    def _schema(self, schema: Any, prefix: str) -> str:
        """The rules of a schema's JSON; the name of the first."""
        self.lines += prefixed(schema_grammar(schema, "tools"), f"{prefix}-").splitlines()
        return f"{prefix}-root"

    def _tagged(self, i: int, schema: Any) -> str:
        tags = self.style.tags
        assert tags is not None
        return self._arguments(f"tool{i}", schema, tags)

    def _arguments(self, rule: str, schema: Any, tags: Tags) -> str:
        """An object's members in tags, in the order of the schema."""
        found = list[str]()
        for j, (key, value, is_needed) in enumerate(_properties(schema)):
            one = f"{rule}-{j}"
            written = self._tagged_value(one, value, tags, tags.end_of(key))
            self.lines.append(f'{one} ::= {_literal(tags.key + key)} {self._mark(tags.value)} {written} "\\n"?')
            found.append(one if is_needed else f"{one}?")
        return " ".join(found)

    def _tagged_value(self, rule: str, schema: Any, tags: Tags, end: str) -> str:
        """A value and what ends it; members in tags of their own, where these are.

        Source: llama.cpp 0c1e570 common/parsers/minimax-m3.cpp, value_of.
        """
        plain = isinstance(schema, dict) and not tags.closes
        if says_strings(schema):
            return self._until(end)
        if plain or not isinstance(schema, dict) or schema.get("type") not in ("object", "array"):
            if tags.closes and isinstance(schema, dict) and "type" not in schema:
                return self._until(end)  # a reference, or one of several: whatever its members are
            return f"{self._schema(schema, rule)} {_literal(end)}"
        if schema["type"] == "object":
            members = self._arguments(rule, schema, tags) if properties_of(schema) else ""
            return f"{members} {_literal(end)}".strip() if members else self._until(end)
        item, shared = schema.get("items"), {key: schema[key] for key in _SHARED if key in schema}
        of = {**item, **shared} if isinstance(item, dict) else {}
        written = self._tagged_value(f"{rule}-item", of, tags, tags.end_of(ITEM))
        self.lines.append(f"{rule}-items ::= {_literal(tags.key + ITEM)} {self._mark(tags.value)} {written}")
        return f"{rule}-items* {_literal(end)}"

    def _until(self, end: str) -> str:
        """Any text up to an end, and that; a state is how much of the end was seen.

        Source: Knuth, Morris and Pratt, Fast pattern matching in strings, 1977.
        """
        if end in self._ends:
            return self._ends[end]
        name = self._ends[end] = f"until-{len(self._ends)}"
        for n in range(len(end)):
            seen, ways = end[:n], list[str]()
            for c in dict.fromkeys(end[: n + 1]):
                text = seen + c
                longest = next(k for k in range(len(text), -1, -1) if end.startswith(text[len(text) - k :]))
                if longest:
                    rest = "" if longest == len(end) else f" {name}-{longest}"
                    ways.append(f"{_literal(c)}{rest}")
            ways.append(f"[^{''.join(map(_escaped, dict.fromkeys(end[: n + 1])))}] {name}-0")
            self.lines.append(f"{name}-{n} ::= {' | '.join(ways)}")
        self._ends[end] = f"{name}-0"
        return self._ends[end]

    def _gemma(self, i: int, schema: Any) -> str:
        self._once(_GEMMA | {"gemma-string": f"{_literal(QUOTE)} {self._until(QUOTE)}"})
        if not properties_of(schema):
            return "gemma-object" if schema.get("additionalProperties", True) else '"{}"'
        return f'"{{" {self._listed(i, schema, ":", ",", self._gemma_value)} "}}"'

    def _gemma_value(self, value: Any, rule: str) -> str:
        kind = value.get("type") if isinstance(value, dict) else None
        if kind == "string":
            return "gemma-string"
        return self._schema(value, rule) if kind in ("integer", "number", "boolean") else "gemma-value"

    def _python(self, i: int, schema: Any) -> str:
        self._once({"python-string": _PYTHON_STRING})
        return self._listed(i, schema, "=", ", ", self._python_value)

    def _python_value(self, value: Any, rule: str) -> str:
        kind = value.get("type") if isinstance(value, dict) else None
        return "python-string" if kind == "string" and "enum" not in value else self._schema(value, rule)

    def _listed(self, i: int, schema: Any, equals: str, comma: str, made: Any) -> str:
        """Pairs of keys and values with something between them: those that are needed, then others."""
        needed, others = list[str](), list[str]()
        for j, (key, value, is_needed) in enumerate(_properties(schema)):
            rule = f"tool{i}-{j}"
            self.lines.append(f"{rule} ::= {_literal(key + equals)} {made(value, rule)}")
            (needed if is_needed else others).append(rule)
        between = _literal(comma)
        if needed:
            return f" {between} ".join(needed) + "".join(f" ({between} {rule})?" for rule in others)
        behind = [f"({between} {rule})?" for rule in others]
        ways = [" ".join((rule, *behind[k + 1 :])) for k, rule in enumerate(others)]
        return f"({' | '.join(ways)})?" if ways else ""

    def _once(self, rules: dict[str, str]) -> None:
        known = {line.partition(" ::= ")[0] for line in self.lines}
        self.lines += [f"{name} ::= {body}" for name, body in rules.items() if name not in known]


def _parameters(function: Json) -> Any:
    """The schema of what a function takes: nothing, where it says of no parameters or lists none.

    Source: OpenAI's API reference, FunctionDefinition: omitting parameters defines an empty list of them.
    """
    schema = function.get("parameters") or {"type": "object", "properties": {}}
    is_empty = isinstance(schema, dict) and set(schema) <= _PLAIN and schema.get("properties") == {}
    return {**schema, "additionalProperties": False} if is_empty else schema


def _properties(schema: Any) -> Iterator[tuple[str, Any, bool]]:
    """An object's properties: the key, the schema, and whether it is needed."""
    needed = schema.get("required") or ()
    shared = {key: schema[key] for key in _SHARED if key in schema}
    for key, value in properties_of(schema).items():
        yield key, {**value, **shared} if isinstance(value, dict) and shared else value, key in needed


def _literal(text: str) -> str:
    return json.dumps(text, ensure_ascii=False) if text else ""


def _escaped(c: str) -> str:
    return f"\\x{ord(c):02X}" if ord(c) < 256 else f"\\u{ord(c):04X}"
