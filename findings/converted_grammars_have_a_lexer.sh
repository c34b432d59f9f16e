#!/bin/sh
# llguidance takes llama.cpp's grammars (GBNF) through its own converter, and should let through what llama.cpp does. In GBNF a rule is a rule:
# `x ::= "a"*` followed by `y ::= "a"` is one or more letters. The converter makes lexemes of rules without recursion, a lexeme is as long as
# it can be, and after x has taken every letter y is never found: no text is whole, and generation cannot end. `.` is any character in
# GBNF, line ends too; converted it is a regular expression's, without them.
# Source: llguidance 1.9.1 python/llguidance/gbnf_to_lark.py, resolve; llama.cpp 0c1e570 src/llama-grammar.cpp,
# llama_grammar_parser::parse_sequence ('.' is LLAMA_GRETYPE_CHAR_ANY), llama_grammar_match_char.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet 'llguidance==1.9.1'
"$folder/env/bin/python" - <<'PYTHON'
import importlib.metadata
import sys

from llguidance import LLMatcher, LLTokenizer
from llguidance.gbnf_to_lark import gbnf_to_lark

tokenizer = LLTokenizer("byte")


def allows(gbnf, text):
    """Whether the text may be generated, and end there."""
    matcher = LLMatcher(tokenizer, LLMatcher.grammar_from_lark(gbnf_to_lark(gbnf)))
    tokens = tokenizer.tokenize_str(text)
    return matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting()


two = 'root ::= x y\nx ::= "a"*\ny ::= "a"'
seen = {
    "x y": [allows(two, text) for text in ("a", "aaa")], "in one rule": allows('root ::= "a"* "a"', "aaa"),
    ".": [allows('root ::= . "b"', text) for text in ("ab", "\nb")],
}
print("version:   llguidance", importlib.metadata.version("llguidance"))
print("expected:  what llama.cpp lets through: all of them")
print("behaviour: rules that could share letters are never whole, and . is no line end")
print("seen:     ", seen)
sys.exit(seen != {"x y": [True, False], "in one rule": True, ".": [True, False]})
PYTHON
