#!/bin/sh
# {"type": "integer"} allows each integer, one would think, ids of messages and users (of 18 or 19 digits) among them. In the grammar that
# llama.cpp's converter and llama-cpp-python's make of it a number has 16 digits at most. A model that is to copy such an id writes its first
# 16 digits, and then has to close the field: the answer is JSON that fits the schema, with another id. With a "pattern" of
# digits, as a string, it is copied whole.
# Source: llama-cpp-python 0.3.36 llama_cpp/llama_grammar.py, PRIMITIVE_RULES; llama.cpp 0c1e570 common/json-schema-to-grammar.cpp,
# PRIMITIVE_RULES ("integral-part").
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
module_path = folder / "llama_grammar.py"
with tarfile.open(folder / "llama_cpp_python-0.3.36.tar.gz") as sdist:
    module_path.write_bytes(sdist.extractfile("llama_cpp_python-0.3.36/llama_cpp/llama_grammar.py").read())
    cpp = sdist.extractfile("llama_cpp_python-0.3.36/vendor/llama.cpp/common/json-schema-to-grammar.cpp").read().decode()
spec = importlib.util.spec_from_file_location("llama_grammar", module_path)
grammar = importlib.util.module_from_spec(spec)
spec.loader.exec_module(grammar)


def rules(schema):
    """The grammar's rules by name."""
    lines = grammar.json_schema_to_gbnf(json.dumps(schema)).splitlines()
    return dict(line.split(" ::= ", 1) for line in lines)


part = rules({"type": "object", "properties": {"id": {"type": "integer"}}, "required": ["id"]})["integral-part"]
in_cpp = re.search(r'"integral-part", \{"([^"]+)"', cpp)[1]


def longest(rule, digits):
    """How many of the digits the rule takes; its only parts are classes of digits, repetitions and choices of them."""
    return max(len(re.match(choice.replace(" ", ""), digits)[0]) for choice in rule.split(" | ") if re.match(choice.replace(" ", ""), digits))


snowflake = "1234567890123456789"
ours = longest(part.replace("(", "(?:"), snowflake), longest(in_cpp, snowflake)
print("version:   llama-cpp-python 0.3.36, and the llama.cpp in it")
print("expected:  an integer of a schema may be an id of 19 digits, as 64 bits hold")
print("behaviour: the grammar takes 16 of them, and then wants the next thing")
print(f"seen:      integral-part is {in_cpp} in llama.cpp, {part[:28]}... in Python; of {snowflake} they take {ours[1]} and {ours[0]} digits")
sys.exit(ours != (16, 16))
PYTHON
