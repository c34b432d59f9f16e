#!/bin/sh
# Chat templates strip line ends off an answer before they show it again: `content.lstrip('\n')` behind "</think>" in Qwen3's and those that
# came of it. In Python that takes line ends alone. @huggingface/jinja, which renders templates for Transformers.js and node-llama-cpp, doesn't
# look at what is in the brackets and takes all white space: an answer that begins with indented code comes back without its first
# indentation, and a model reads a conversation in which it broke its own code.
# Source: @huggingface/jinja 0.5.11 src/runtime.ts, StringValue.builtins (strip, lstrip, rstrip).
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet 'jinja2==3.1.6'
npm install --silent --no-audit --no-fund --prefix "$folder" '@huggingface/jinja@0.5.11'
cat > "$folder/render.mjs" <<'NODE'
import { Template } from "@huggingface/jinja";
const [template, content] = process.argv.slice(2);
process.stdout.write(new Template(template).render({ content }));
NODE
"$folder/env/bin/python" - "$folder" <<'PYTHON'
import importlib.metadata
import subprocess
import sys

import jinja2

TEMPLATE = "{{ content.split('</think>')[-1].lstrip('\\n') }}"
CONTENT = "<think>Short.</think>\n\n    return 1\n"
in_python = jinja2.Template(TEMPLATE, keep_trailing_newline=True).render(content=CONTENT)
in_node = subprocess.run(["node", "render.mjs", TEMPLATE, CONTENT], cwd=sys.argv[1], capture_output=True, text=True, check=True).stdout
print("version:   @huggingface/jinja 0.5.11, jinja2", importlib.metadata.version("jinja2"))
print("expected:  lstrip('\\n') takes line ends and nothing else")
print("behaviour: it takes the white space behind them, too")
print(f"seen:      {in_node!r} (in Python: {in_python!r})")
sys.exit((in_python, in_node) != ("    return 1\n", "return 1\n"))
PYTHON
