#!/bin/sh
# A tool's arguments come back in the next prompt as the chat template prints them. Qwen3-Coder's and those that came of it print what is neither text nor
# a list as `args_value | string`, in Python's words: True, False, None, with which the model was trained. @huggingface/jinja, which renders for
# Transformers.js and node-llama-cpp, prints JavaScript's: true and false, and for None nothing at all, so `{{ value }}` of what was null is an empty
# text. `-3.7 | int` is -4. llama.cpp's own engine prints True, False and None.
# Source: @huggingface/jinja 0.5.11 src/runtime.ts, BooleanValue, NullValue, NumericValue's filter "int" (Math.floor); Jinja's str().
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet 'jinja2==3.1.6'
npm install --silent --no-audit --no-fund --prefix "$folder" '@huggingface/jinja@0.5.11'
"$folder/env/bin/python" - "$folder" <<'PYTHON'
import importlib.metadata
import json
import subprocess
import sys

import jinja2

folder = sys.argv[1]
TEMPLATE = "{% for name, value in arguments | items %}<parameter={{ name }}>{{ value }}</parameter>{% endfor %}"
ARGUMENTS = {"recursive": True, "limit": None}
SCRIPT = """
import {Template} from "@huggingface/jinja";
const [template, values] = JSON.parse(process.argv[2]);
process.stdout.write(new Template(template).render(values));
"""
with open(f"{folder}/render.mjs", "w") as file:
    file.write(SCRIPT)


def both(template, **values):
    """What Python's Jinja and JavaScript's make of a template."""
    command = ["node", f"{folder}/render.mjs", json.dumps([template, values])]
    return jinja2.Template(template).render(values), subprocess.run(command, capture_output=True, text=True, check=True).stdout


arguments, numbers = both(TEMPLATE, arguments=ARGUMENTS), both("{{ -3.7 | int }}")
print("version:   @huggingface/jinja 0.5.11, jinja2", importlib.metadata.version("jinja2"))
print("expected:  a template prints the same in both")
print("behaviour: truth values and nothing are spelt otherwise, and negative numbers rounded otherwise")
print(f"seen:      of {ARGUMENTS} and -3.7, in Python {arguments[0]!r}, {numbers[0]}; in JavaScript {arguments[1]!r}, {numbers[1]}")
sys.exit(not (">True<" in arguments[0] and ">None<" in arguments[0] and ">true<" in arguments[1] and "=limit></" in arguments[1] and numbers == ("-3", "-4")))
PYTHON
