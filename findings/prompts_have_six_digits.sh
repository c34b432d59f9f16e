#!/bin/sh
# What a tool was called with comes back in the next prompt, as the chat template prints it: `arguments | tojson`, in most of them. Python
# writes a number's shortest spelling, so a model reads the very numbers that it wrote. llama.cpp's engine writes six digits of what is no integer:
# an amount of 1234567.89 has become 1.23457e+06, and coordinates are a house or two off. Printed without tojson it has six decimals,
# so 1e-7 is 0.0. A model that goes on working with its numbers does so with others.
# Source: llama.cpp 0c1e570 common/jinja/value.cpp, value_to_json_internal (oss << val->as_float()); common/jinja/value.h,
# value_float_t::as_string (std::to_string).
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

TEMPLATE = "{% for m in messages %}{% for call in m.tool_calls %}{{ call.function.arguments | tojson }} {{ call.function.arguments.dose }}{% endfor %}{% endfor %}"
ARGUMENTS = {"amount": 1234567.89, "latitude": 51.5073509, "dose": 1e-7}
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


call = {"id": "1", "type": "function", "function": {"name": "pay", "arguments": json.dumps(ARGUMENTS)}}
chat = [{"role": "user", "content": ""}, {"role": "assistant", "content": "", "tool_calls": [call]}, {"role": "tool", "tool_call_id": "1", "content": ""}]
in_llama = ask("/apply-template", messages=chat)["prompt"]
in_python = jinja2.Template(TEMPLATE).render(messages=[{"tool_calls": [{"function": {"arguments": ARGUMENTS}}]}])
print("version:   xllamacpp", importlib.metadata.version("xllamacpp"), "(llama.cpp's server inside), jinja2", importlib.metadata.version("jinja2"))
print("expected:  a call's arguments are in the next prompt as the model wrote them")
print("behaviour: llama.cpp prints six digits of numbers that are no integers, and six decimals where a template prints them without tojson")
print(f"seen:      {in_llama} (in Python: {in_python})")
sys.exit(in_llama != '{"amount": 1.23457e+06, "latitude": 51.5074, "dose": 1e-07} 0.0')
PYTHON
