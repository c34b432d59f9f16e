#!/bin/sh
# Answers by a JSON schema are JSON, one would think. In the grammar that llama-cpp-python makes of a schema a string's character is
# anything but a quote and a backslash, line ends and tabs included, which JSON allows in no string: json.loads refuses such an answer.
# Bounds of integers ("minimum", "maximum") make no difference to the grammar. llama.cpp's own converter has moved on in both.
# Source: llama-cpp-python 0.3.36 llama_cpp/llama_grammar.py, PRIMITIVE_RULES; llama.cpp 0c1e570 common/json-schema-to-grammar.cpp.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" download --quiet --no-deps --no-binary :all: --dest "$folder" 'llama-cpp-python==0.3.36'
"$folder/env/bin/python" - "$folder" <<'PYTHON'
import importlib.util
import json
import re
import sys
import tarfile
from pathlib import Path


folder = Path(sys.argv[1])
archive = folder / "llama_cpp_python-0.3.36.tar.gz"
module_path = folder / "llama_grammar.py"
with tarfile.open(archive) as sdist:
    module_path.write_bytes(sdist.extractfile("llama_cpp_python-0.3.36/llama_cpp/llama_grammar.py").read())
spec = importlib.util.spec_from_file_location("llama_grammar", module_path)
grammar = importlib.util.module_from_spec(spec)
spec.loader.exec_module(grammar)


def rules(schema):
    """The grammar's rules by name."""
    lines = grammar.json_schema_to_gbnf(json.dumps(schema)).splitlines()
    return dict(line.split(" ::= ", 1) for line in lines)


char = rules({"type": "string"})["char"].split(" | ")[0]
bounded = rules({"type": "integer", "minimum": 0, "maximum": 9}) == rules({"type": "integer"})
answer = '"a\nb"'
follows = all(re.fullmatch(char, c) for c in answer[1:-1])
try:
    json.loads(answer)
    refused = False
except json.JSONDecodeError as error:
    refused = str(error)
print("version:   llama-cpp-python 0.3.36")
print("expected:  what follows the grammar of a schema is JSON, and as the schema says")
print("behaviour: strings may have line ends as they are, and integers any value")
print(f"seen:      a character of a string: {char}; {answer!r} follows it: {follows}, json.loads: {refused}; same grammar with bounds: {bounded}")
sys.exit(not (follows and refused and bounded))
PYTHON
