#!/bin/sh
# A schema's `const` or `enum` allows exactly its values, so an id that is named there should come out as it is, whatever the model would write.
# llguidance reads numbers of a schema as doubles. Of an id with more than 15 digits it makes the nearest double and forces that one's digits on the
# model: another id, in an answer that the grammar vouches for, and the right one is not allowed. Ids that differ in their last digits
# become one. An `integer` without const is written with all of its digits.
# Source: llguidance 1.9.1 parser/src/json/schema.rs, compile_const (as_f64).
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet 'llguidance==1.9.1'
"$folder/env/bin/python" - <<'PYTHON'
import importlib.metadata
import sys

from llguidance import LLMatcher, LLTokenizer

tokenizer = LLTokenizer("byte")
FIRST, SECOND = 1234567890123456789, 1234567890123456790


def matcher(schema):
    return LLMatcher(tokenizer, LLMatcher.grammar_from_json_schema(schema))


def forced(schema):
    """What the grammar writes itself, before the model has a choice."""
    return bytes(matcher(schema).compute_ff_tokens()).decode()


def allows(schema, number):
    found = matcher(schema)
    tokens = tokenizer.tokenize_str(str(number))
    return found.try_consume_tokens(tokens) == len(tokens) and found.is_accepting()


seen = [forced({"const": FIRST}), forced({"enum": [FIRST, SECOND]}), allows({"enum": [FIRST, SECOND]}, FIRST), allows({"type": "integer"}, FIRST)]
print("version:   llguidance", importlib.metadata.version("llguidance"))
print(f"expected:  {FIRST} is written, and of two ids the model may choose one")
print("behaviour: the nearest double is written, which is the same for both")
print("seen:      const: {}; enum of two: {}; is the first of them allowed: {}; as an integer: {}".format(*seen))
sys.exit(seen != ["1234567890123456768", "1234567890123456768", False, True])
PYTHON
