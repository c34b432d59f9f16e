"""JSON schemas as GBNF: what a model may write, so that it is JSON and as the schema says.

Whatever the grammar allows is valid by the keywords that are read here: types, const and enum, properties, required and
additionalProperties, items, prefixItems and their number, lengths, patterns and formats, bounds of integers, anyOf,
oneOf and allOf, $ref within the schema. Others (uniqueItems, multipleOf, not, if, ..., and a pattern beside values) are
not looked at. As in llama.cpp, properties come in the schema's order, required ones first, and an object with
properties has no others unless additionalProperties says so.

Source: llama.cpp 0c1e570 common/json-schema-to-grammar.cpp and json-schema.cpp (what is allowed; blanks; numbers of 16
digits); JSON Schema 2020-12.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import unquote

from server.api.integers import integer_gbnf
from server.api.patterns import PatternError, characters, literal, pattern_gbnf
from server.api.schema_words import (
    COMBINED,
    FORMATS,
    RULES,
    SIGNS,
    TELLING,
    TYPES,
    UUID_WIDTH,
    WIDTHS,
    Json,
    SchemaError,
    bound_of,
    count_of,
    holds,
    list_of,
    merged,
)

_NAME: Final = re.compile(r"(?<![\w-])[a-z]+(?![\w-])")
_TEXT: Final = re.compile(r'"(?:\\.|[^"\\])*"|\[(?:\\.|[^\]\\])*\]')


def schema_gbnf(schema: Any) -> str:
    """The grammar of the documents that a schema allows; its first rule is `root`.

    Raises:
        SchemaError: it is none, or allows nothing.
        RecursionError: it is nested too deeply.
    """
    return _Converter(schema).grammar()


class _Converter:
    def __init__(self, schema: Any) -> None:
        self._schema = schema
        self._rules: dict[str, str] = {}
        self._of_refs: dict[str, str] = {}

    def grammar(self) -> str:
        root = self._schema if self._schema != {} else {"type": "object"}
        rules = {"root": self._expression(root, "root"), **self._rules}
        due = list(rules)
        while due:
            for name in _NAME.findall(_TEXT.sub(" ", rules[due.pop()])):
                if name in RULES and name not in rules:
                    rules[name] = RULES[name]
                    due.append(name)
        return "\n".join(f"{name} ::= {body}" for name, body in rules.items())

    def _rule(self, name: str, body: str) -> str:
        """The name of a rule for an expression; one word needs none."""
        if re.fullmatch(r"[\w-]+", body):
            return body
        base, number = name, 0
        while self._rules.get(name, body) != body:
            number += 1
            name = f"{base}-{number}"
        self._rules[name] = body
        return name

    def _named(self, schema: Any, name: str) -> str:
        return self._rule(name, self._expression(schema, name))

    def _expression(self, schema: Any, name: str) -> str:
        if schema is True:
            return "value"
        if not isinstance(schema, dict):
            raise SchemaError(f"{schema!r:.40} is no schema that allows anything: expected an object")
        rest = {key: value for key, value in schema.items() if key not in COMBINED}
        if "$ref" in schema:
            if rest.keys().isdisjoint(TELLING):
                return self._ref(schema["$ref"])
            return self._expression(self._both(rest, schema), name)
        if "allOf" in schema:
            return self._expression(self._all(schema), name)
        for key in ("oneOf", "anyOf"):
            if key in schema:
                return self._union([self._both(rest, each) for each in list_of(schema, key)], name)
        kind = schema.get("type")
        if isinstance(kind, list) and kind and "enum" not in schema and "const" not in schema:
            return self._union([{**schema, "type": each} for each in list_of(schema, "type")], name)
        return self._plain(schema, kind, name)

    def _plain(self, schema: Json, kind: Any, name: str) -> str:
        if kind == []:
            raise SchemaError("a schema allows nothing: no type is left")
        for each in kind if isinstance(kind, list) else [kind]:
            if each is not None and not (isinstance(each, str) and each in TYPES):
                raise SchemaError(f"the type {each!r:.40} is none: expected one of {', '.join(TYPES)}")
        if "const" in schema or "enum" in schema:
            return _values(schema, kind)
        if kind is None:
            kind = next((SIGNS[key] for key in schema if key in SIGNS), None)
        match kind:
            case "object":
                return self._object(schema, name)
            case "array":
                return self._array(schema, name)
            case "string":
                return self._string(schema, name)
            case "integer":
                return integer_gbnf(schema)
            case "number" if bound_of(schema, "minimum", -1) >= 0 or bound_of(schema, "exclusiveMinimum", -1) >= 0:
                return "positive"
        return kind or "value"

    def _union(self, schemas: Sequence[Any], name: str) -> str:
        return " | ".join(self._named(each, f"{name}-{i}") for i, each in enumerate(schemas))

    def _ref(self, ref: Any) -> str:
        """The rule of what is referred to, made once: it may refer to itself."""
        found = self._resolved(ref)
        if ref not in self._of_refs:
            name = self._of_refs[ref] = f"ref{len(self._of_refs)}"
            self._rules[name] = ""  # taken
            self._rules[name] = self._expression(found, name)
        return self._of_refs[ref]

    def _resolved(self, ref: Any) -> Any:
        if not isinstance(ref, str) or not (ref == "#" or ref.startswith("#/")):
            raise SchemaError(f"$ref is {ref!r:.80}, expected a place within the schema, such as #/$defs/name")
        found: Any = self._schema
        for step in ref.split("/")[1:]:
            key = unquote(step).replace("~1", "/").replace("~0", "~")
            if isinstance(found, dict) and key in found:
                found = found[key]
            elif isinstance(found, list) and key.isdecimal() and int(key) < len(found):
                found = found[int(key)]
            else:
                raise SchemaError(f"$ref {ref!r:.80} leads nowhere: there is no {key!r:.40}")
        return found

    def _all(self, schema: Json) -> Any:
        """One schema of all that must hold, without allOf."""
        found: Any = {key: value for key, value in schema.items() if key != "allOf"}
        parts = list_of(schema, "allOf")
        for part in parts:
            found = self._both(found, part if len(parts) == 1 else self._followed(part))
        return found

    def _followed(self, schema: Any) -> Any:
        """What a schema is that may be a reference."""
        seen = []
        while isinstance(schema, dict) and "$ref" in schema:
            if schema["$ref"] in seen:
                raise SchemaError(f"$ref {schema['$ref']!r:.80} leads to itself")
            seen.append(schema["$ref"])
            beside = {key: value for key, value in schema.items() if key != "$ref"}
            schema = self._both(beside, self._resolved(schema["$ref"]))
        return schema

    def _both(self, first: Any, second: Any) -> Any:
        """One schema of two that must hold; what is none comes to whoever says so."""
        if not isinstance(first, dict):
            return second if first is True else first
        if second is True or not isinstance(second, dict):
            return first if second is True else second
        if first.keys().isdisjoint({*TELLING, *COMBINED}):
            return {**first, **second}
        second = self._followed(second)
        if isinstance(second, dict) and "allOf" in second:
            second = self._all(second)
        return merged(first, second) if isinstance(second, dict) else self._both(first, second)

    def _object(self, schema: Json, name: str) -> str:
        properties, required = schema.get("properties", {}), schema.get("required", [])
        if not isinstance(properties, dict) or not isinstance(required, list):
            raise SchemaError("properties must be an object, and required an array")
        if not all(isinstance(key, str) for key in required):
            raise SchemaError(f"required is {required!r:.40}, expected an array of names")
        others = schema.get("additionalProperties", not properties)
        unnamed = {key: others if isinstance(others, dict) else True for key in required if key not in properties}
        if not properties and not unnamed and others is True:
            return "object"
        pairs = {
            key: self._rule(
                f"{_word(name, key)}-kv", f'{_text(key)} space ":" space {self._named(value, _word(name, key))}'
            )
            for key, value in {**properties, **unnamed}.items()
            if value is not False
        }
        first = ' "," space '.join(pair for key, pair in pairs.items() if key in required)
        # each with how often it may come behind others, and what it is where it comes first
        optional = [(pair, "?", pair) for key, pair in pairs.items() if key not in required]
        if others is not False:
            value = self._named(others, f"{name}-other")
            pair = self._rule(f"{name}-others", f'{_other_key(pairs)} space ":" space {value}')
            optional.append((pair, "*", f'{pair} ("," space {pair})*'))
        behind = [f'("," space {pair}){sign}' for pair, sign, _ in optional]
        if first:
            inside = " ".join([first, *behind])
        else:
            ways, rest = [], ""
            for i in reversed(range(len(optional))):
                ways.append(f"{optional[i][2]} {rest}".strip())
                rest = self._rule(f"{name}-from-{i}", f"{behind[i]} {rest}".strip()) if i else ""
            inside = f"({' | '.join(reversed(ways))})?" if ways else ""
        return f'"{{" space {inside} space "}}"' if inside else '"{" space "}"'

    def _array(self, schema: Json, name: str) -> str:
        items, front = schema.get("items", True), schema.get("prefixItems", [])
        if isinstance(items, list):  # as drafts before 2020 had it
            items, front = schema.get("additionalItems", False), items
        elif front and "items" not in schema:
            items = False
        low, high = count_of(schema, "minItems") or 0, count_of(schema, "maxItems")
        if items is True and not front and not low and high is None:
            return "array"
        if not isinstance(front, list):
            raise SchemaError("prefixItems must be an array of schemas")
        found = [self._named(each, f"{name}-{i}") for i, each in enumerate(front[:high])]
        if items is not False:
            item = self._named(items, f"{name}-item")
            left = None if high is None else high - len(found)
            if not found:
                return f'"[" space {_listed(item, low, high)} space "]"'
            found[-1] += _repeat(f' ("," space {item})', max(low - len(found), 0), left)
        elif low > len(found):
            raise SchemaError(f"minItems is {low}, and there are schemas for {len(found)} items")
        return '"[" space ' + ' "," space '.join(found) + ' space "]"' if found else '"[" space "]"'

    def _string(self, schema: Json, name: str) -> str:
        pattern, form = schema.get("pattern"), schema.get("format")
        low, high = count_of(schema, "minLength") or 0, count_of(schema, "maxLength")
        if pattern is not None:
            try:
                text = pattern_gbnf(str(pattern), "char", low, high)
            except PatternError as error:
                raise SchemaError(str(error)) from None
            return f'"\\"" {self._rule(f"{name}-text", text)} "\\""' if text else '"\\"\\""'
        if form in FORMATS:
            least, most = WIDTHS.get(form, (UUID_WIDTH, UUID_WIDTH))
            if low > least or (high is not None and high < most):
                raise SchemaError(
                    f"a {form} has {least} to {most} characters, which minLength and maxLength must allow"
                )
            return f'"\\"" {FORMATS[form]} "\\""'
        return "string" if not low and high is None else f'"\\"" {_repeat("char", low, high)} "\\""'


def _values(schema: Json, kind: Any) -> str:
    """The values that are named, those left out that are not as the schema says."""
    given = [schema["const"]] if "const" in schema else list_of(schema, "enum")
    kinds = TYPES if kind is None else kind if isinstance(kind, list) else [kind]
    found = [value for value in given if any(TYPES[each](value) for each in kinds)]
    if not found:
        raise SchemaError(f"none of the values {json.dumps(given)[:80]} is of the type {kind!r:.40}")
    found = [value for value in found if holds(schema, value)]
    if not found:
        raise SchemaError(f"none of the values {json.dumps(given)[:80]} is as the lengths or bounds beside them say")
    ways = [literal(json.dumps(value, ensure_ascii=False, separators=(",", ":"))) for value in found]
    return f"({' | '.join(ways)})" if len(ways) > 1 else ways[0]


def _repeat(item: str, low: int, high: int | None) -> str:
    if high is not None and high <= 0:
        return ""
    return f"{item}{{{low},{'' if high is None else high}}}"


def _listed(item: str, low: int, high: int | None) -> str:
    """From `low` to `high` of them, with commas between."""
    if high == 0:
        return ""
    more = _repeat(f'("," space {item})', max(low - 1, 0), None if high is None else high - 1)
    found = f"{item} {more}".strip()
    return found if low else f"({found})?"


def _other_key(known: Mapping[str, str]) -> str:
    """A string that is none of the known ones; those that JSON spells by escapes are not told from others."""
    names = [key for key in known if json.dumps(key, ensure_ascii=False)[1:-1] == key]
    return f'"\\"" {_none_of(names)} "\\""' if names else "string"


def _none_of(names: Sequence[str]) -> str:
    """The characters of a string that is none of the names, as far as they are not empty."""
    heads: dict[str, list[str]] = {}
    for each in names:
        if each:
            heads.setdefault(each[0], []).append(each[1:])
    ways = [f"{literal(head)} {_none_of(tails)}" for head, tails in heads.items()]
    others = characters([(ord(head), ord(head)) for head in heads], negated=True)
    other = others[:-1] + r'"\\\x7F\x00-\x1F]'
    ways += [f'({other} | [\\\\] (["\\\\bfnrt] | "u" [0-9a-fA-F]{{4}})) char*'] if heads else ["char+"]
    return f"({' | '.join(ways)})" + ("" if "" in names or not heads else "?")


def _text(key: str) -> str:
    return literal(json.dumps(key, ensure_ascii=False))


def _word(name: str, key: str) -> str:
    return f"{name}-{re.sub('[^A-Za-z0-9]+', '-', key).strip('-')[:40] or 'x'}"
