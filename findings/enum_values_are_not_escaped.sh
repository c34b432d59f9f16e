#!/bin/sh
# An `enum` of strings in a JSON schema should come out as JSON spells them. lm-format-enforcer takes an enum's characters as they are: a value
# with a line end is written with a raw one, which no JSON parser takes, and one with a quotation mark ends there, as a value that the
# enum does not have. The right spelling, with a backslash, is not allowed. Free strings beside it are escaped properly.
# Source: lm-format-enforcer 0.11.3 lmformatenforcer/jsonschemaparser.py, get_parser (enum), StringParsingState.get_allowed_characters.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet 'lm-format-enforcer==0.11.3'
"$folder/env/bin/python" - <<'PYTHON'
import importlib.metadata
import json
import sys

from lmformatenforcer import JsonSchemaParser


def allows(schema, text):
    """Whether the text may be generated, and end there."""
    parser = JsonSchemaParser(schema)
    for character in text:
        if character not in parser.get_allowed_characters():
            return False
        parser = parser.add_character(character)
    return parser.can_end()


def is_json(text):
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


lines, quoted = {"type": "string", "enum": ["one\ntwo"]}, {"type": "string", "enum": ['6" pipe']}
seen = {
    "right spellings": [allows(lines, json.dumps("one\ntwo")), allows(quoted, json.dumps('6" pipe'))],
    "raw line end": allows(lines, '"one\ntwo"'), "is JSON": is_json('"one\ntwo"'),
    "cut at the quotation mark": allows(quoted, '"6"'), "a free string": allows({"type": "string"}, json.dumps("one\ntwo")),
}
print("version:   lm-format-enforcer", importlib.metadata.version("lm-format-enforcer"))
print("expected:  values of an enum come out as JSON spells them")
print("behaviour: raw, so that a line end makes it no JSON, and a quotation mark ends the value early")
print("seen:     ", seen)
sys.exit(
    seen
    != {
        "right spellings": [False, False], "raw line end": True, "is JSON": False,
        "cut at the quotation mark": True, "a free string": True,
    }
)
PYTHON
