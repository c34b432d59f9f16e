#!/bin/sh
# A schema without `maxItems` says nothing of an array's length, so a model should be free to list what there is. Under lm-format-enforcer it may
# not write a comma behind the 20th item, and answers look complete: valid JSON that fits the schema, with the rest missing. Who asks for at
# least 20 items has no such bound, and `maxItems: 40` may have its 40: only silence means 20.
# Source: lm-format-enforcer 0.11.3 lmformatenforcer/consts.py, DEFAULT_MAX_JSON_ARRAY_LENGTH; jsonschemaparser.py, ListParsingState.__init__.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet 'lm-format-enforcer==0.11.3'
"$folder/env/bin/python" - <<'PYTHON'
import importlib.metadata
import sys

from lmformatenforcer import JsonSchemaParser


def longest(bounds):
    """Items after which the array of ones has to end; None: 60 were let through."""
    parser = JsonSchemaParser({"type": "array", "items": {"type": "integer"}, **bounds}).add_character("[")
    for n_items in range(1, 61):
        parser = parser.add_character("1")
        if "," not in parser.get_allowed_characters():
            return n_items
        parser = parser.add_character(",")
    return None


seen = [longest({}), longest({"minItems": 25}), longest({"maxItems": 40})]
print("version:   lm-format-enforcer", importlib.metadata.version("lm-format-enforcer"))
print("expected:  without maxItems an array is as long as the model writes it")
print("behaviour: it ends behind 20 items; with minItems of 25 nowhere, with maxItems of 40 behind 40")
print("seen:     ", seen)
sys.exit(seen != [20, None, 40])
PYTHON
