"""Arguments in a notation of the model's own, told as JSON."""

import ast
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from ggufphys.units import parse_json
from server.api.conversation.incoming import Incoming, Reads, Wait, n_begun
from server.api.conversation.style import QUOTE, Tags

Tell = Callable[[str], object]
_MOST_KEY: Final = 1000  # characters
_MOST_REFERENCES: Final = 10  # that lead to one another
_GEMMA_KEY: Final = frozenset("{,")
_BREAKS: Final = {"\n": "\\n", "\r": "\\r"}
ITEM: Final = "item"  # MiniMax M3's tag of an array's members
_CDATA: Final = "<![CDATA["
_LITERALS: Final = {"true": True, "false": False, "null": None}
_NO_PYTHON: Final = (SyntaxError, ValueError, TypeError, RecursionError, MemoryError)
_NOTHING: Final[Mapping[str, Any]] = {}


def tagged(incoming: Incoming, tags: Tags, schema: Any, tell: Tell) -> Wait:
    """Arguments with tags around each; a schema says which of them are strings."""
    properties = properties_of(schema)
    front, behind = tags.value[0].strip(), tags.value[-1]
    separator = "{"
    while (yield from _opens(incoming, tags)):
        key = (yield from incoming.until((front or tags.end.strip(),), _MOST_KEY)).strip()
        yield from incoming.expect(front)
        if len(tags.value) > 1:
            yield from incoming.until((behind.strip(),), _MOST_KEY)
            yield from incoming.expect(behind)
        tell(f"{separator}{_text(key)}:")
        separator = ","
        end = tags.end_of(key)
        if behind.endswith("\n"):  # values stand on lines of their own, if they do
            yield from _awaited(incoming)
            if incoming.text[incoming.at] == "\n":
                incoming.at += 1
            else:
                end = end.lstrip()
        if _kinds(_resolved(properties.get(key), schema)) == {"string"}:
            yield from _string(incoming, end, tell)
        else:
            said = list[str]()
            yield from _plain(incoming, end, said.append)
            tell(_value("".join(said), properties.get(key), tags, schema))
    tell("}" if separator != "{" else "{}")


def _opens(incoming: Incoming, tags: Tags) -> Reads[bool]:
    """Does another argument begin? What closes begins alike, where arguments stand in tags of their own."""
    start = incoming.at
    if not (yield from incoming.literal(tags.key)):
        return False
    if tags.closes:
        yield from _awaited(incoming)
        if incoming.text[incoming.at] == "/":
            incoming.at = start
            return False
    return True


def _value(text: str, schema: Any, tags: Tags, root: Any) -> str:
    """A value as JSON; members of objects and arrays may stand in tags of their own. `root`: where references lead."""
    schema = _resolved(schema, root)
    kinds = _kinds(schema)
    members = list(_members(text, tags)) if tags.closes and text.lstrip().startswith(tags.key) else []
    is_empty = tags.closes and not text.strip() and kinds in ({"array"}, {"object"})
    if not members and not is_empty:
        return _text(text) if kinds == {"string"} else _typed(text, schema)
    if "array" in kinds or (not kinds and all(key == ITEM for key, _ in members)):
        of = schema.get("items") if isinstance(schema, dict) else None
        return f"[{','.join(_value(inner, of, tags, root) for _, inner in members)}]"
    known = properties_of(schema)
    pairs = (f"{_text(key)}:{_value(inner, known.get(key), tags, root)}" for key, inner in members)
    return f"{{{','.join(pairs)}}}"


def _resolved(schema: Any, root: Any) -> Any:
    """What a schema refers to, within the root; itself where it refers to nothing that is there."""
    for _ in range(_MOST_REFERENCES):
        reference = schema.get("$ref") if isinstance(schema, dict) else None
        if not isinstance(reference, str) or not reference.startswith("#/"):
            break
        found = root
        for name in reference[2:].split("/"):
            found = found.get(name) if isinstance(found, dict) else None
        schema = found
    return schema


def _members(text: str, tags: Tags) -> Iterator[tuple[str, str]]:
    """Keys and what stands in their tags, none where they are not all closed."""
    at, found = 0, list[tuple[str, str]]()
    while (start := text.find(tags.key, at)) >= 0:
        key = text[start + len(tags.key) :].partition(tags.value[0])[0]
        opens, closes = f"{tags.key}{key}{tags.value[0]}", tags.end_of(key)
        begin = inner = start + len(opens)
        depth = 1
        while depth:
            end, another = text.find(closes, inner), text.find(opens, inner)
            if end < 0:
                return
            is_another = 0 <= another < end
            depth += 1 if is_another else -1
            inner = another + len(opens) if is_another else end + len(closes)
        found.append((key, text[begin : inner - len(closes)]))
        at = inner
    yield from found


def gemma(incoming: Incoming, tell: Tell) -> Wait:
    """Arguments in Gemma 4's braces: keys without quotes, strings between marks."""
    yield from incoming.expect("{")
    tell("{")
    depth, last = 1, "{"
    while depth:
        yield from incoming.skip()
        if (yield from incoming.literal(QUOTE)):
            tell('"')
            yield from _plain(incoming, QUOTE, lambda text: tell(_text(text)[1:-1]))
            tell('"')
            last = '"'
            continue
        c = incoming.text[incoming.at]
        if c in "{}[],:":
            incoming.at += 1
            depth += (c in "{[") - (c in "}]")
            tell(c)
            last = c
            continue
        word = yield from incoming.until(("{", "}", "[", "]", ",", ":", QUOTE), _MOST_KEY)
        is_key = last in _GEMMA_KEY and incoming.text[incoming.at] == ":"
        tell(_text(word.strip().strip('"')) if is_key else _typed(word.strip(), _NOTHING))
        last = word[-1:]


def python(incoming: Incoming, schema: Any, tell: Tell) -> Wait:
    """Keyword arguments of Python's, up to the parenthesis behind them, told when all have come.

    What is no Python is told as it is.
    """
    text = yield from _within_parentheses(incoming)
    names = list(properties_of(schema))
    try:
        made = ast.parse(f"f({text})", mode="eval").body
        if not isinstance(made, ast.Call):
            raise ValueError(text)
        found = {names[i]: _constant(node) for i, node in enumerate(made.args)}
        found |= {each.arg: _constant(each.value) for each in made.keywords if each.arg}
        tell(json.dumps(found, ensure_ascii=False))
    except (IndexError, *_NO_PYTHON):
        tell(text)


def properties_of(schema: Any) -> Mapping[str, Any]:
    """An object's properties by name."""
    found = schema.get("properties") if isinstance(schema, dict) else None
    return found if isinstance(found, dict) else {}


def says_strings(schema: Any) -> bool:
    """May a value be a string?"""
    return "string" in _kinds(schema)


def _kinds(schema: Any) -> set[str]:
    """The types that values of a schema may have; none where it does not say."""
    if not isinstance(schema, dict):
        return set()
    kind = schema.get("type")
    if isinstance(kind, str):
        return {kind}
    if isinstance(kind, list):
        return {each for each in kind if isinstance(each, str)}
    values = schema.get("enum") or ([schema["const"]] if "const" in schema else [])
    if isinstance(values, list) and values:
        return {"string" if isinstance(value, str) else "other" for value in values}
    ways = schema.get("anyOf") or schema.get("oneOf")
    return set().union(*map(_kinds, ways)) if isinstance(ways, list) else set()


def _typed(text: str, schema: Any) -> str:
    """A value as JSON: as it is if it is that, or Python's, else as a string."""
    try:
        value = parse_json(text.strip())
    except ValueError:
        try:
            return json.dumps(_constant(ast.parse(text.strip(), mode="eval").body), ensure_ascii=False)
        except _NO_PYTHON:
            return _text(text)
    return _text(text) if isinstance(value, str) and says_strings(schema) else text.strip()


def _text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _awaited(incoming: Incoming) -> Wait:
    while incoming.at >= len(incoming.text):
        yield from incoming.more()


def _string(incoming: Incoming, end: str, tell: Tell) -> Wait:
    tell('"')
    if (yield from incoming.literal(_CDATA)):  # MiniCPM's, of strings that look like tags
        end = f"]]>{end.strip()}"
    yield from _plain(incoming, end, lambda text: tell(_text(text)[1:-1]))
    tell('"')


def _plain(incoming: Incoming, end: str, tell: Tell) -> Wait:
    """Tell what comes up to an end, and pass that."""
    while True:
        found = incoming.text.find(end, incoming.at)
        stop = found if found >= 0 else len(incoming.text) - n_begun(incoming.text, end, incoming.at)
        if stop > incoming.at:
            tell(incoming.text[incoming.at : stop])
        incoming.at = stop
        if found >= 0:
            incoming.at += len(end)
            return
        incoming.done()
        yield from incoming.more()


def _within_parentheses(incoming: Incoming) -> Reads[str]:
    """Python's text; lines within strings, which models break as they are, in Python's way."""
    said, depth, quote, escaped = list[str](), 0, "", False
    while True:
        while incoming.at < len(incoming.text):
            c = incoming.text[incoming.at]
            if quote:
                quote = quote if escaped or c != quote else ""
                escaped = c == "\\" and not escaped
            elif c in "'\"":
                quote = c
            elif c in ")]}" and depth == 0:
                return "".join(said)
            else:
                depth += (c in "([{") - (c in ")]}")
            said.append(_BREAKS.get(c, c) if quote else c)
            incoming.at += 1
        incoming.done()
        yield from incoming.more()


def _constant(node: ast.expr) -> Any:
    match node:
        case ast.Constant(value=str() | int() | float() | bool() | None as value):
            return value
        case ast.Name(id=name) if name in _LITERALS:
            return _LITERALS[name]
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
            return -value
        case ast.List(elts=values) | ast.Tuple(elts=values):
            return _constants(values)
        case ast.Dict(keys=keys, values=values):
            return dict(zip((_constant(key) for key in keys if key is not None), _constants(values), strict=True))
    raise ValueError(ast.dump(node))


def _constants(nodes: Sequence[ast.expr]) -> list[Any]:
    return [_constant(node) for node in nodes]
