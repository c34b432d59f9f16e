#!/bin/sh
# `allOf` holds where each of its schemas does: at least 3 characters and at most 5 are a string of 3 to 5. outlines-core makes a regular
# expression of it, for a model to keep to, by writing one schema's behind the other's: two strings in a row, "abc""de", which is no JSON at
# all, while "abcd", which the schema is for, is not matched.
# Source: outlines-core 0.2.14 src/json_schema/parsing.rs, Parser::parse_all_of.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet 'outlines-core==0.2.14'
"$folder/env/bin/python" - <<'PYTHON'
import importlib.metadata
import json
import re
import sys

from outlines_core.json_schema import build_regex_from_schema

schema = {"allOf": [{"type": "string", "minLength": 3}, {"type": "string", "maxLength": 5}]}
pattern = re.compile(build_regex_from_schema(json.dumps(schema)))
seen = {text: bool(pattern.fullmatch(text)) for text in ('"abcd"', '"abc""de"')}
print("version:   outlines-core", importlib.metadata.version("outlines-core"))
print("expected:  a string of 3 to 5 characters")
print("behaviour: two strings, one behind the other")
print("seen:     ", seen)
sys.exit(seen != {'"abcd"': False, '"abc""de"': True})
PYTHON
