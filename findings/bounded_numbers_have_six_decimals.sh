#!/bin/sh
# A number between 0 and 1 is any such number, as JSON writes them. In XGrammar, which vLLM and SGLang take by default, a number with a
# `minimum` or `maximum` has six decimals at most and no exponent, where one without has any: a learning rate or a likelihood below a
# millionth can't be written, nor a latitude of seven digits between -90 and 90. The model has to end the number there, and what
# follows fits the schema. llguidance writes all decimals of the same schemas, and no exponent either.
# Source: xgrammar 0.2.9 cpp/json_schema_converter.cc, GenerateFloatRangeRegex; llguidance 1.9.1 parser/src/json/numeric.rs, rx_float_range.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet 'apache-tvm-ffi==0.1.15.post2' 'numpy==2.4.6' 'pydantic==2.14.4' 'typing_extensions==4.16.0' 'llguidance==1.9.1'
"$folder/env/bin/pip" install --quiet --no-deps 'xgrammar==0.2.9' 2>/dev/null  # without PyTorch and Transformers: only its C++ is asked
"$folder/env/bin/python" - <<'PYTHON'
import importlib.metadata
import importlib.util
import json
import sys
import types

import llguidance

package = types.ModuleType("xgrammar")
package.__path__ = importlib.util.find_spec("xgrammar").submodule_search_locations
sys.modules["xgrammar"] = package
import xgrammar.load_binding
from xgrammar.base import _core
from xgrammar.grammar import Grammar

RAW, END = 0, 256  # the kind of vocabulary; the token that ends an answer
TOKENS = [bytes([byte]) for byte in range(END)] + [b"</s>"]
compiler = _core.GrammarCompiler(_core.TokenizerInfo(TOKENS, RAW, None, [END], False), 1, False, -1, False)


class Bytes:
    eos_token_id, bos_token_id, tokens, special_token_ids = END, None, TOKENS, [END]

    def __call__(self, text):
        return list(text if isinstance(text, bytes) else text.encode())


tokenizer = llguidance.LLTokenizer(llguidance.TokenizerWrapper(Bytes()))


def by_xgrammar(schema, text):
    grammar = Grammar.from_json_schema(json.dumps(schema))
    matcher = _core.GrammarMatcher(compiler.compile_grammar_ebnf(grammar._handle), None, False, -1, None)
    return matcher.accept_string(text, False) and matcher.accept_token(END, False)


def by_llguidance(schema, text):
    matcher = llguidance.LLMatcher(tokenizer, llguidance.LLMatcher.grammar_from_json_schema(json.dumps(schema)))
    return matcher.try_consume_tokens(list(text.encode())) == len(text) and matcher.is_accepting()


texts = ["0.25", "0.1234567", "0.00000025", "2.5e-7"]
seen = {
    f"{allows.__name__}, {bounds or 'no bounds'}": [text for text in texts if allows({"type": "number", **bounds}, text)]
    for allows in (by_xgrammar, by_llguidance)
    for bounds in ({}, {"minimum": 0, "maximum": 1})
}
print("version:   xgrammar", importlib.metadata.version("xgrammar"), "llguidance", importlib.metadata.version("llguidance"))
print(f"expected:  {texts} are numbers between 0 and 1")
print("behaviour: with bounds XGrammar allows six decimals, and neither an exponent")
print(f"seen:      {seen}")
sys.exit(list(seen.values()) != [texts, ["0.25"], texts, texts[:3]])
PYTHON
