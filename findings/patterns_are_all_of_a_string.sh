#!/bin/sh
# In JSON Schema a `pattern` is searched for: "[0-9]" is any string with a digit in it; who means all of it writes anchors. outlines-core makes
# of it the regular expression of the whole string, set between two quotation marks as it stands: "[0-9]" is one digit and nothing else. Since it
# matches the JSON's characters rather than the string's, a class of all but some has the raw line end and the lone backslash in it, too:
# what follows "^[^,]+$", no comma, may be no JSON at all. llguidance does what the specification says.
# Source: outlines-core 0.2.14 src/json_schema/parsing.rs, Parser::parse_string_type (pattern); JSON Schema 2020-12, validation, 6.3.3.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet 'outlines-core==0.2.14' 'llguidance==1.9.1'
"$folder/env/bin/python" - <<'PYTHON'
import importlib.metadata
import json
import sys

from llguidance import LLMatcher, LLTokenizer
from outlines_core import Guide, Index, Vocabulary
from outlines_core.json_schema import build_regex_from_schema

END = 128
characters = Vocabulary(END, {chr(code): [code] for code in range(END)})
tokenizer = LLTokenizer("byte")


def by_outlines(schema, text):
    """Whether the text may be generated, and end there."""
    guide = Guide(Index(build_regex_from_schema(json.dumps(schema)), characters))
    for character in text:
        if ord(character) not in guide.get_tokens():
            return False
        guide.advance(ord(character), return_tokens=False)
    return END in guide.get_tokens()


def by_llguidance(schema, text):
    matcher = LLMatcher(tokenizer, LLMatcher.grammar_from_json_schema(schema))
    tokens = tokenizer.tokenize_str(text)
    return matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting()


def is_json(text):
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


cases = [("[0-9]", '"5"'), ("[0-9]", '"room 5"'), ("^[^,]+$", r'"one\ntwo"'), ("^[^,]+$", '"one\ntwo"'), ("^[^,]+$", r'"C:\windows"')]
seen = {}
for pattern, text in cases:
    schema = {"type": "string", "pattern": pattern}
    seen[pattern, text] = by_outlines(schema, text), by_llguidance(schema, text), is_json(text)
print("version:   outlines-core", importlib.metadata.version("outlines-core"), "llguidance", importlib.metadata.version("llguidance"))
print("expected:  each string in which the pattern is found, spelled as JSON")
print("behaviour: the pattern is the whole string, raw")
print("seen:      allowed by outlines-core, by llguidance, and is it JSON:", seen)
sys.exit(list(seen.values()) != [(True, True, True), (False, True, True), (True, True, True), (True, False, False), (True, False, False)])
PYTHON
