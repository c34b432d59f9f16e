"""What JSON schemas allow, by llama.cpp's own reading of the grammars that are made of them."""

import json
import re
from itertools import product
from typing import Any

import pytest

from server.api.gbnf import check_grammar
from server.api.integers import between
from server.api.json_schema import schema_gbnf
from server.api.schema_words import SchemaError
from tests.server.api.test_gbnf import follows
from tests.server.api.test_gbnf import vocab as vocab  # a fixture

NODE = {"type": "object", "properties": {"next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}}}
# schema, documents that it allows, others
CASES: dict[str, tuple[Any, list[str], list[str]]] = {
    "no controls in strings": ({"type": "string"}, ['"a\\n\\u00e9é"', '""'], ['"a\nb"', '"a\tb"', '"\\x"', "a"]),
    "blanks": ({"type": "object"}, ["{}", '{ "a": [1, 2] }', '{\n  "a": 1\n}'], ["{} ", " {}", '{"a":    1}']),
    "anything": ({"description": "x"}, ["1", "null", '{"a": [true]}', '"x"'], ["nul", "[1"]),
    "no document at all": ({}, ["{}", '{"a": 1}'], ["1", "null"]),
    "numbers": ({"type": "number"}, ["0", "-1.5e+3", "10", "0.0001"], ["01", "1.", ".5", "+1"]),
    "positive numbers": ({"type": "number", "minimum": 0}, ["0", "1.5"], ["-1"]),
    "integers": ({"type": "integer"}, ["0", "-12", "1234567890123456"], ["1.5", "01", "12345678901234567"]),
    "between": (
        {"type": "integer", "minimum": -12, "maximum": 105}, ["-12", "-1", "0", "9", "10", "99", "100", "105"],
        ["-13", "-0", "106", "110", "1000", "00"],
    ),
    "at least": ({"type": "integer", "minimum": 18}, ["18", "19", "20", "100", "1800"], ["17", "9", "1", "-18", "0"]),
    "less than": ({"type": "integer", "exclusiveMaximum": 0}, ["-1", "-10"], ["0", "1", "-0", "-01"]),
    "required first": (
        {"properties": {"a": {"const": 1}, "b": {"const": 2}, "c": {"const": 3}}, "required": ["b"]},
        ['{"b": 2}', '{"b": 2, "a": 1}', '{"b": 2, "a": 1, "c": 3}', '{"b": 2, "c": 3}'],
        ["{}", '{"a": 1}', '{"b": 2, "c": 3, "a": 1}', '{"b": 2, "d": 4}', '{"b": 2,}'],
    ),
    "all optional": (
        {"type": "object", "properties": {"a": {"const": 1}, "b": {"const": 2}, "c": {"const": 3}}},
        ["{}", '{"a": 1}', '{"b": 2}', '{"a": 1, "c": 3}', '{"a": 1, "b": 2, "c": 3}'],
        ['{"b": 2, "a": 1}', '{"d": 1}'],
    ),
    "others": (
        {"properties": {"and": {"const": 1}, "also": {"const": 2}}, "additionalProperties": {"type": "null"}},
        ["{}", '{"and": 1}', '{"x": null}', '{"and": 1, "an": null, "andy": null}', '{"also": 2, "als": null}'],
        ['{"and": null}', '{"x": null, "also": 2}', '{"also": null}'],
    ),
    "required and not described": (
        {"type": "object", "required": ["a"], "additionalProperties": {"type": "boolean"}},
        ['{"a": true}', '{"a": true, "b": false}'], ["{}", '{"b": true}', '{"a": 1}'],
    ),
    "no others": ({"type": "object", "additionalProperties": False}, ["{}", "{ }"], ['{"a": 1}']),
    "odd names": (
        {"properties": {'a"]}': {"const": 1}, "é b": {"const": 2}, "": {"const": 3}}, "required": ['a"]}', "é b", ""]},
        ['{"a\\"]}": 1, "é b": 2, "": 3}'], ['{"a": 1, "é b": 2, "": 3}'],
    ),
    "a tuple and more": (
        {"prefixItems": [{"const": 1}, {"const": 2}], "items": {"const": 0}, "minItems": 3, "maxItems": 4},
        ["[1, 2, 0]", "[1, 2, 0, 0]"], ["[1, 2]", "[1, 2, 0, 0, 0]", "[2, 1, 0]"],
    ),
    "a number of items": ({"type": "array", "minItems": 1, "maxItems": 2}, ["[1]", '["a", null]'], ["[]", "[1, 2, 3]"]),
    "values of a type": (
        {"type": ["string", "null"], "enum": ["a", 1, None, {"b": [1]}]}, ['"a"', "null"], ["1", '{"b":[1]}']
    ),
    "types": ({"type": ["integer", "boolean"]}, ["1", "true"], ["null", '"a"']),
    "what is said beside a choice": (
        {"type": "object", "properties": {"k": {"const": 0}}, "required": ["k"],
         "anyOf": [{"properties": {"a": {"const": 1}}, "required": ["a"]}, {"properties": {"b": {"const": 2}}}]},
        ['{"k": 0, "a": 1}', '{"k": 0}', '{"k": 0, "b": 2}'], ['{"a": 1}', "{}", '{"k": 0, "a": 1, "b": 2}'],
    ),
    "all of them": (
        {"allOf": [{"$ref": "#/$defs/a"}, {"properties": {"b": {"const": 2}}, "required": ["b"]}],
         "$defs": {"a": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}}},
        ['{"a": 7, "b": 2}'], ['{"a": 7}', '{"b": 2}', "{}"],
    ),
    "bounds of both": (
        {"allOf": [{"type": "integer", "minimum": 3}, {"maximum": 5}]}, ["3", "4", "5"], ["2", "6"]
    ),
    "within itself": (
        {"$ref": "#/$defs/node", "$defs": {"node": NODE}}, ["{}", '{"next": {"next": null}}'], ['{"next": 1}', "null"]
    ),
    "lengths": ({"type": "string", "minLength": 1, "maxLength": 2}, ['"a"', '"éé"', '"\\n"'], ['""', '"abc"']),
    "values of a length": ({"enum": ["a", "abc", 1], "minLength": 2}, ['"abc"', "1"], ['"a"']),
    "values between": ({"enum": [1, 2, 3], "minimum": 2, "exclusiveMaximum": 3}, ["2"], ["1", "3"]),
    "a pattern of a length": (
        {"type": "string", "pattern": r"^([A-Z]{2}-\d+)$", "minLength": 5, "maxLength": 6}, ['"AB-12"', '"AB-123"'],
        ['"AB-1"', '"AB-1234"', '"AB"'],
    ),
    "a pattern within a length": (
        {"type": "string", "pattern": "b", "maxLength": 3}, ['"b"', '"ab"', '"abc"'], ['"abcd"', '"aaa"', '""']
    ),
    "a pattern of that length anyhow": (
        {"type": "string", "pattern": "^(ab?){1,2}$", "minLength": 1, "maxLength": 4}, ['"a"', '"abab"'], ['""']
    ),
    "dates of a length": ({"format": "date", "minLength": 1, "maxLength": 20}, ['"2026-11-29"'], ['"2026"']),
    "dates": ({"format": "date"}, ['"2026-11-29"'], ['"2026-13-01"', '"29.11.2026"']),
    "a pattern": (
        {"type": "string", "pattern": r"^(ab|\d{2,3})-[^a-f]?$"}, ['"ab-"', '"12-z"', '"123-"'],
        ['"1-"', '"ab-a"', '"ab"'],
    ),
    "a pattern within": ({"type": "string", "pattern": "b+"}, ['"b"', '"abbc"'], ['"a"', '""']),
    "a pattern of what JSON spells otherwise": (
        {"type": "string", "pattern": r'^\w+\s"[\\/]$'}, [r'"ab \"/"', r'"ab\n\"\\"'], ['"ab "/"', '"ab\n"/"'],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_is_allowed(vocab: object, case: str) -> None:
    """Documents that fit follow the grammar and are JSON; others do not follow it."""
    schema, fitting, others = CASES[case]
    text = schema_gbnf(schema)
    check_grammar(text)
    for document in fitting:
        json.loads(document)
    found = {each: follows(vocab, text, each) for each in (*fitting, *others)}
    assert found == {**dict.fromkeys(fitting, True), **dict.fromkeys(others, False)}


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        (False, "no schema that allows anything"),
        ([], "no schema"),
        ({"type": "text"}, "the type 'text' is none"),
        ({"$ref": "http://a/b"}, "a place within the schema"),
        ({"$ref": "#/$defs/a"}, "leads nowhere"),
        ({"enum": []}, "not empty"),
        ({"enum": ["a"], "type": "integer"}, "is of the type 'integer'"),
        ({"type": "integer", "minimum": 3, "maximum": 2}, "no integer from 3 to 2"),
        ({"type": "string", "pattern": "("}, "cannot be read"),
        ({"type": "string", "pattern": "^(?=a)$"}, "assert, which no grammar can follow"),
        ({"type": "string", "minLength": -1}, "no less than 0"),
        ({"type": "string", "pattern": "^[a-z]{4}$", "maxLength": 3}, r"keep to 3 characters \(maxLength\)"),
        ({"type": "string", "pattern": "^[a-z]?$", "minLength": 2}, r"give 2 characters \(minLength\)"),
        ({"type": "string", "format": "date", "maxLength": 3}, "a date has 10 to 10 characters"),
        ({"enum": ["a"], "minLength": 2}, "as the lengths or bounds beside them say"),
        ({"allOf": [{"type": "string"}, {"type": "integer"}]}, "allows nothing"),
    ],
)
def test_what_is_none(schema: object, why: str) -> None:
    """A schema that no grammar can be made of, or that allows nothing, is told by what is wrong with it."""
    with pytest.raises(SchemaError, match=why):
        schema_gbnf(schema)


def test_integers() -> None:
    """Every integer between two bounds is allowed, and no other, digit by digit."""
    for low, high in [(0, 0), (0, 7), (3, 12), (10, 99), (19, 21), (7, 1000), (99, 101), (123, 3210), (500, 599)]:
        expression = re.compile(f"({between(low, high).replace(' ', '')})")
        assert [n for n in range(4000) if expression.fullmatch(str(n))] == list(range(low, high + 1))


@pytest.mark.parametrize(
    "pattern", ["a+b*", "^a+b*$", "^(ab|b)*a*$", "^a{2,5}[ab]+$", "^(a+b)*[ab]+$", "b$", "^.*a.?$"]
)
@pytest.mark.parametrize(("low", "high"), [(0, 3), (1, 3), (3, 4), (3, None)])
def test_lengths_beside_a_pattern(vocab: object, pattern: str, low: int, high: int | None) -> None:
    """Of all short texts of two letters only those may be written that match and are of that length, and some may."""
    lengths = {"minLength": low} | ({} if high is None else {"maxLength": high})
    text = schema_gbnf({"type": "string", "pattern": pattern, **lengths})
    check_grammar(text)
    written = {each for each in _texts(5) if follows(vocab, text, f'"{each}"')}
    assert written
    assert all(re.search(pattern, each) and low <= len(each) <= (high or 5) for each in written)


def _texts(most: int) -> list[str]:
    return ["".join(letters) for n in range(most + 1) for letters in product("ab", repeat=n)]
