#!/bin/sh
# A string of at least one character is still any string, one would think: `minLength: 1` asks for an answer that isn't empty, `maxLength: 500` for
# a short one. Under XGrammar, which vLLM and SGLang take by default, a string with either is of another kind: it has no escapes. No line end,
# quotation mark or backslash can be written in it, and a model that means to quote something has to end the string there. Code in such
# a field is one line without strings.
# Source: xgrammar 0.2.9 cpp/json_schema_converter.cc, JSONSchemaConverter::GenerateString.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet 'apache-tvm-ffi==0.1.15.post2' 'numpy==2.4.6' 'pydantic==2.14.4' 'typing_extensions==4.16.0'
"$folder/env/bin/pip" install --quiet --no-deps 'xgrammar==0.2.9' 2>/dev/null  # without PyTorch and Transformers: only its C++ is asked
"$folder/env/bin/python" - <<'PYTHON'
import importlib.metadata
import importlib.util
import json
import sys
import types

package = types.ModuleType("xgrammar")
package.__path__ = importlib.util.find_spec("xgrammar").submodule_search_locations
sys.modules["xgrammar"] = package
import xgrammar.load_binding
from xgrammar.base import _core
from xgrammar.grammar import Grammar

RAW, END = 0, 256  # the kind of vocabulary; the token that ends an answer
tokenizer = _core.TokenizerInfo([bytes([byte]) for byte in range(END)] + [b"</s>"], RAW, None, [END], False)
compiler = _core.GrammarCompiler(tokenizer, 1, False, -1, False)


def allows(schema, text):
    """Whether the text may be generated, and end there."""
    grammar = Grammar.from_json_schema(json.dumps(schema))
    matcher = _core.GrammarMatcher(compiler.compile_grammar_ebnf(grammar._handle), None, False, -1, None)
    return matcher.accept_string(json.dumps(text), False) and matcher.accept_token(END, False)


texts = ["hello", "two\nlines", 'say "hi"', "C:\\windows"]
schemas = [{}, {"minLength": 1}, {"maxLength": 500}]
seen = {str(bounds): [allows({"type": "string", **bounds}, text) for text in texts] for bounds in schemas}
print("version:   xgrammar", importlib.metadata.version("xgrammar"))
print("expected:  all of them are strings of 1 to 500 characters")
print("behaviour: with a bound, only those that JSON spells without a backslash")
print(f"seen:      {texts}: {seen}")
sys.exit(list(seen.values()) != [[True] * 4] + [[True, False, False, False]] * 2)
PYTHON
