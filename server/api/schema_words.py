"""What do the keywords of JSON schemas say? Rules for types and formats, and how two schemas are one.

Source: llama.cpp 0c1e570 common/json-schema-to-grammar.cpp, PRIMITIVE_RULES, STRING_FORMAT_RULES, SPACE_RULE; JSON
Schema 2020-12, validation.
"""

from collections.abc import Callable, Mapping
from math import inf
from typing import Any, Final

Json = dict[str, Any]

# Rules that others name, by name.
RULES: Final = {
    "space": r'| " " | "\n"{1,2} [ \t]{0,20}',
    "char": r'[^"\\\x7F\x00-\x1F] | [\\] (["\\bfnrt] | "u" [0-9a-fA-F]{4})',
    "string": r'"\"" char* "\""',
    "integral": r"[0] | [1-9] [0-9]{0,15}",
    "integer": '"-"? integral',
    "positive": 'integral ("." [0-9]{1,16})? ([eE] [-+]? integral)?',
    "number": '"-"? positive',
    "boolean": '"true" | "false"',
    "null": '"null"',
    "array": '"[" space (value ("," space value)*)? space "]"',
    "object": '"{" space (string ":" space value ("," space string ":" space value)*)? space "}"',
    "value": "object | array | string | number | boolean | null",
    "date": '[0-9]{4} "-" ("0" [1-9] | "1" [0-2]) "-" ("0" [1-9] | [1-2] [0-9] | "3" [0-1])',
    "time": (
        '([01] [0-9] | "2" [0-3]) ":" [0-5] [0-9] ":" [0-5] [0-9] ("." [0-9]{3})? '
        '("Z" | [+] ([01] [0-9] | "2" [0-3]) ":" [0-5] [0-9] | "-" ([01] [0-9] | "2" [0-3]) ":" [0-5] [0-9])'
    ),
    "uuid": '[0-9a-fA-F]{8} "-" [0-9a-fA-F]{4} "-" [0-9a-fA-F]{4} "-" [0-9a-fA-F]{4} "-" [0-9a-fA-F]{12}',
}
FORMATS: Final = {
    "date": "date", "time": "time", "date-time": 'date "T" time',
    **dict.fromkeys(("uuid", *(f"uuid{i}" for i in range(1, 6))), "uuid"),
}  # fmt: skip
WIDTHS: Final = {"date": (10, 10), "time": (9, 18), "date-time": (20, 29)}  # of formats; the others are uuid
UUID_WIDTH: Final = 36
TYPES: Final[Mapping[str, Callable[[Any], bool]]] = {
    "object": lambda v: isinstance(v, dict),
    "array": lambda v: isinstance(v, list),
    "string": lambda v: isinstance(v, str),
    "integer": lambda v: type(v) is int or (type(v) is float and v.is_integer()),
    "number": lambda v: type(v) in (int, float),
    "boolean": lambda v: isinstance(v, bool),
    "null": lambda v: v is None,
}
# What says of which type a value is, where a schema does not.
SIGNS: Final = {
    "properties": "object", "required": "object", "additionalProperties": "object", "items": "array",
    "prefixItems": "array", "minItems": "array", "maxItems": "array", "pattern": "string", "minLength": "string",
    "maxLength": "string", "format": "string",
}  # fmt: skip
COMBINED: Final = ("$ref", "allOf", "anyOf", "oneOf")
TELLING: Final = (
    *SIGNS, "type", "const", "enum", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "additionalItems",
)  # fmt: skip


class SchemaError(ValueError):
    """No grammar can be made of a schema, and why."""


def list_of(schema: Json, key: str) -> list[Any]:
    """A keyword's array, which has something in it. Raises SchemaError."""
    found = schema[key]
    if not isinstance(found, list) or not found:
        raise SchemaError(f"{key} must be an array, and not empty")
    return found


def count_of(schema: Json, key: str) -> int | None:
    """A keyword's number of items or characters. Raises SchemaError."""
    value = schema.get(key)
    if value is None:
        return None
    if type(value) is float and value.is_integer():
        value = int(value)
    if type(value) is not int or value < 0:
        raise SchemaError(f"{key} is {value!r:.40}, expected a number that is no less than 0")
    return value


def bound_of(schema: Json, key: str, default: float) -> float:
    """A keyword's number. Raises SchemaError."""
    value = schema.get(key, default)
    if isinstance(value, bool):  # as draft 4 had it: whether the other bound is one of the values
        return default
    if type(value) not in (int, float):
        raise SchemaError(f"{key} is {value!r:.40}, expected a number")
    return value  # type: ignore[no-any-return]


def holds(schema: Json, value: Any) -> bool:
    """Whether a value is as a schema's lengths, bounds and numbers of items say. Raises SchemaError.

    Its pattern is not asked: a request's expression can take `re` for ever.
    """
    if isinstance(value, str | list):
        low, high = ("minLength", "maxLength") if isinstance(value, str) else ("minItems", "maxItems")
        least, most = count_of(schema, low) or 0, count_of(schema, high)
        return least <= len(value) and (most is None or len(value) <= most)
    if type(value) in (int, float):
        low_is, high_is = (schema.get(each) is True for each in ("exclusiveMinimum", "exclusiveMaximum"))  # draft 4
        lowest, highest = bound_of(schema, "minimum", -inf), bound_of(schema, "maximum", inf)
        inside = lowest <= value <= highest and not (low_is and value == lowest) and not (high_is and value == highest)
        above, below = bound_of(schema, "exclusiveMinimum", -inf), bound_of(schema, "exclusiveMaximum", inf)
        return bool(inside and above < value < below)
    return True


def merged(first: Json, second: Json) -> Json:
    """What is as both say; of keywords that are no types, members or bounds the second's counts."""
    found = {**first, **second}
    for key in first.keys() & second.keys():
        a, b = first[key], second[key]
        match key:
            case "properties" if isinstance(a, dict) and isinstance(b, dict):
                found[key] = {**a, **b} | {each: {"allOf": [a[each], b[each]]} for each in a.keys() & b.keys()}
            case "required" if isinstance(a, list) and isinstance(b, list):
                found[key] = [*a, *(each for each in b if each not in a)]
            case "enum" if isinstance(a, list) and isinstance(b, list):
                found[key] = [each for each in a if each in b]
            case "type":
                of_b = b if isinstance(b, list) else [b]
                kinds = [each for each in (a if isinstance(a, list) else [a]) if each in of_b]
                found[key] = kinds[0] if len(kinds) == 1 else kinds
            case "anyOf" | "oneOf" if isinstance(a, list) and isinstance(b, list):
                found[key] = [{"allOf": [each, other]} for each in a for other in b]
            case "additionalProperties":
                found[key] = False if False in (a, b) else a if b is True else b
            case _ if not all(isinstance(each, int | float) for each in (a, b)):
                pass  # whoever looks at it says what is wrong
            case "minimum" | "exclusiveMinimum" | "minLength" | "minItems":
                found[key] = max(a, b)
            case "maximum" | "exclusiveMaximum" | "maxLength" | "maxItems":
                found[key] = min(a, b)
    return found
