#!/bin/sh
# {"type": ["string", "null"], "enum": [...]} is how many tools write "one of these, or nothing". llama-cpp-python makes a grammar of
# it that lets any string through: a list of types is taken before the enum, and only the types are kept (the same goes for
# "properties", "items" and all other keywords beside such a list). The same enum without the list is obeyed, and so is a nullable
# one written as anyOf.
# Source: llama-cpp-python 0.3.36 llama_cpp/llama_grammar.py, SchemaConverter.visit (isinstance(schema_type, list)).
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" download --quiet --no-deps --no-binary :all: --dest "$folder" 'llama-cpp-python==0.3.36'
"$folder/env/bin/python" - "$folder" <<'PYTHON'
import importlib.util
import json
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


def root(schema):
    """The rule of the grammar that a whole answer must follow."""
    lines = grammar.json_schema_to_gbnf(json.dumps(schema)).splitlines()
    return next(line.removeprefix("root ::= ") for line in lines if line.startswith("root ::= "))


plain = root({"type": "string", "enum": ["red", "green"]})
nullable = root({"type": ["string", "null"], "enum": ["red", "green", None]})
any_of = root({"anyOf": [{"enum": ["red", "green"]}, {"type": "null"}]})
print("version:   llama-cpp-python 0.3.36")
print("expected:  a nullable enum allows its values and null")
print("behaviour: it allows every string: the keywords beside a list of types are dropped without a word")
print(f"seen:      enum: {plain}; nullable enum: {nullable}; as anyOf: {any_of}")
sys.exit((plain, nullable, any_of) != (r'"\"red\"" | "\"green\""', "string | null", "alternative-0 | null"))
PYTHON
