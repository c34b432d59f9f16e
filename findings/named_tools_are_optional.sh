#!/bin/sh
# tool_choice of OpenAI's API is "none", "auto", "required", or a tool by name, {"type": "function", "function": {"name": ...}}, which is how
# frameworks get structured answers: that tool and no other. llama.cpp's server reads a string; for the named tool, an object, it takes the default,
# "auto", and says so in its log alone. Who asked for one tool so asks for less than with "required": the model may call another one, or
# none, and its answer is free text.
# Source: llama.cpp 0c1e570 tools/server/server-common.cpp, oaicompat_chat_params_parse (json_value(body, "tool_choice", "auto"));
# tools/server/server-common.h, json_value.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet 'xllamacpp==2026.10.11549' 'gguf==0.19.0'
"$folder/env/bin/python" - "$folder" <<'PYTHON'
import importlib.metadata
import json
import sys
import urllib.request

import gguf
import numpy
import xllamacpp

TEMPLATE = """{% for m in messages %}{% for call in m.tool_calls %}<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>{% endfor %}{{ m.content }}
{% endfor %}{% if tools %}{{ tools | tojson }}{% endif %}"""
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


def ending(choice):
    """Of an answer by a model that wants to end at once."""
    tools = [{"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {}}}} for name in ("pay", "refund")]
    body = {"messages": [{"role": "user", "content": "Hello"}], "tools": tools, "max_tokens": 30, "logit_bias": [[2, 100]]}
    return ask("/v1/chat/completions", tool_choice=choice, **body)["choices"][0]["finish_reason"]


seen = {name: ending(choice) for name, choice in {"auto": "auto", "required": "required", "pay": {"type": "function", "function": {"name": "pay"}}}.items()}
print("version:   xllamacpp", importlib.metadata.version("xllamacpp"), "(llama.cpp's server inside)")
print("expected:  who names a tool in tool_choice gets a call of it")
print('behaviour: named tools are "auto": only "required" keeps a model from ending without a call')
print(f"seen:      a model that would end at once, by tool_choice: {seen} (length: it may not end yet)")
sys.exit(seen != {"auto": "stop", "required": "length", "pay": "stop"})
PYTHON
