#!/bin/sh
# {{ tool }} in a chat template prints the tool, as Python shows a dictionary; so do {{ tools }} and {{ message.tool_calls }}. In llama.cpp's own
# engine an object prints nothing, and a list its strings and numbers without anything between them. Joined to a string, `"" ~ tool`, the
# same object is printed whole, so a template that is tried out with one may lose its tools in the other. The prompt has none, and no
# error says so.
# Source: llama.cpp 0c1e570 common/jinja/runtime.h, gather_string_parts_recursive; common/jinja/value.h, value_object_t::as_string.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet 'xllamacpp==2026.10.11549' 'gguf==0.19.0' 'jinja2==3.1.6'
"$folder/env/bin/python" - "$folder" <<'PYTHON'
import importlib.metadata
import json
import sys
import urllib.request

import gguf
import jinja2
import numpy
import xllamacpp

TEMPLATE = "{{ tools }}|{{ tools[0].function.parameters.required }}|{{ '' ~ tools[0].function.parameters.properties }}"
tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *"abcdefghijklmnopqrstuvwxyz"]


def write_model(path, template):
    """A valid llama of one layer, all weights zero, whose vocabulary is the bytes and letters."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_context_length(256)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(32)
    writer.add_head_count(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * len(tokens))
    writer.add_token_types([2, 3, 3] + [6] * 256 + [1] * 27)
    writer.add_chat_template(template)
    square = {f"blk.0.{part}.weight": (32, 32) for part in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")}
    norms = {name: (32,) for name in ("output_norm.weight", "blk.0.attn_norm.weight", "blk.0.ffn_norm.weight")}
    for name, shape in ({"token_embd.weight": (len(tokens), 32)} | square | norms).items():
        writer.add_tensor(name, numpy.zeros(shape, numpy.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


params = xllamacpp.CommonParams()
params.model.path = write_model(f"{sys.argv[1]}/model.gguf", TEMPLATE)
params.n_ctx, params.n_parallel, params.port, params.verbosity = 256, 1, 0, 0
server = xllamacpp.Server(params)  # llama-server's own code, in this process


def ask(path, **body):
    request = urllib.request.Request(server.listening_address + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


parameters = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city", "unit"]}
tools = [{"type": "function", "function": {"name": "weather", "parameters": parameters}}]
in_llama = ask("/apply-template", messages=[{"role": "user", "content": "Hello"}], tools=tools)["prompt"]
in_python = jinja2.Template(TEMPLATE).render(tools=tools)
print("version:   xllamacpp", importlib.metadata.version("xllamacpp"), "(llama.cpp's server inside), jinja2", importlib.metadata.version("jinja2"))
print("expected:  an object that a template prints is printed, as in Python")
print("behaviour: it is nothing; a list is its items in a row; joined to a string both are whole")
print(f"seen:      {in_llama!r} (in Python: {in_python!r})")
sys.exit(in_llama != "|cityunit|{'city': {'type': 'string'}}" or "weather" not in in_python)
PYTHON
