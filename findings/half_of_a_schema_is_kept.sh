#!/bin/sh
# Keywords of a JSON schema hold together: an object with an `id` for all, and beside it `anyOf` with what a payment or a refund has besides, is both. So it
# is for llguidance. XGrammar, which vLLM and SGLang take by default, keeps the alternatives and drops the rest, without a warning: the `id`, though it is
# required, can't be written. outlines-core keeps the rest and drops the alternatives: nothing but the `id` can be. The same schema is two
# others, neither of which has an answer that fits, and a model that answers well has no way to.
# Source: xgrammar 0.2.9 cpp/json_schema_converter.cc, SchemaParser::Parse (anyOf); issue 858 of the project; outlines-core 0.2.14
# src/json_schema/parsing.rs, Parser::to_regex; JSON Schema 2020-12, core, 10.2.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet 'apache-tvm-ffi==0.1.15.post2' 'numpy==2.4.6' 'pydantic==2.14.4' 'typing_extensions==4.16.0' 'llguidance==1.9.1' 'outlines-core==0.2.14'
"$folder/env/bin/pip" install --quiet --no-deps 'xgrammar==0.2.9' 2>/dev/null  # without PyTorch and Transformers: only its C++ is asked
"$folder/env/bin/python" - "$folder" <<'PYTHON'
import importlib.metadata
import importlib.util
import json
import re
import sys
import types

import llguidance
from outlines_core.json_schema import build_regex_from_schema

package = types.ModuleType("xgrammar")
package.__path__ = importlib.util.find_spec("xgrammar").submodule_search_locations
sys.modules["xgrammar"] = package
import xgrammar.load_binding
from xgrammar.base import _core
from xgrammar.grammar import Grammar

NUMBER = {"type": "integer"}
SCHEMA = {
    "type": "object",
    "properties": {"id": NUMBER},
    "required": ["id"],
    "anyOf": [{"properties": {name: NUMBER}, "required": [name]} for name in ("paid", "refunded")],
}
TEXTS = ['{"id": 1, "paid": 2}', '{"id": 1}', '{"paid": 2}']
RAW, END = 0, 256  # the kind of vocabulary; the token that ends an answer


class Bytes:
    """A vocabulary of the bytes, for llguidance."""

    eos_token_id, bos_token_id, special_token_ids = END, None, [END]
    tokens = [bytes([byte]) for byte in range(END)] + [b"</s>"]

    def __call__(self, text):
        return list(text if isinstance(text, bytes) else text.encode())


def in_xgrammar(text):
    tokenizer = _core.TokenizerInfo(Bytes.tokens, RAW, None, [END], False)
    grammar = _core.GrammarCompiler(tokenizer, 1, False, -1, False).compile_grammar_ebnf(Grammar.from_json_schema(json.dumps(SCHEMA))._handle)
    matcher = _core.GrammarMatcher(grammar, None, False, -1, None)
    return matcher.accept_string(text, False) and matcher.accept_token(END, False)


def in_outlines(text):
    return re.fullmatch(build_regex_from_schema(json.dumps(SCHEMA)), text) is not None


def in_llguidance(text):
    grammar = llguidance.LLMatcher.grammar_from_json_schema(json.dumps(SCHEMA))
    matcher = llguidance.LLMatcher(llguidance.LLTokenizer(llguidance.TokenizerWrapper(Bytes())), grammar)
    return matcher.validate_tokens([*text.encode(), END]) == len(text) + 1


seen = {name: [text for text in TEXTS if allows(text)] for name, allows in {"llguidance": in_llguidance, "xgrammar": in_xgrammar, "outlines-core": in_outlines}.items()}
print("version:  ", ", ".join(f"{name} {importlib.metadata.version(name)}" for name in seen))
print("expected:  of", ", ".join(TEXTS), "the first alone fits a required id beside anyOf of paid and refunded")
print("behaviour: XGrammar drops what is beside anyOf, outlines-core drops anyOf")
print(f"seen:      {seen}")
sys.exit(seen != {"llguidance": TEXTS[:1], "xgrammar": TEXTS[2:], "outlines-core": TEXTS[1:2]})
PYTHON
