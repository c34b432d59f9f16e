#!/bin/sh
# A chat template is Jinja, made for Python's: `length` counts characters, and a slice or `upper` knows all letters. In llama.cpp's own engine
# strings are bytes: "été" is 5 long, its first letter is half of one (the prompt then is no UTF-8), and upper-cased it keeps both é.
# A template that cuts or measures text works in English tests and makes other prompts of the same conversation elsewhere.
# Source: llama.cpp 0c1e570 common/jinja/string.cpp, string::length, string::uppercase; common/jinja/value.cpp,
# value_string_t::get_builtins ("slice").
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

TEMPLATE = "{% for m in messages %}{{ m.content | length }} {{ m.content[:1] }} {{ m.content | upper }}{% endfor %}"
tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]


def write_model(path):
    """A valid llama of one layer, all weights zero, whose vocabulary is the bytes."""
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
    writer.add_token_types([2, 3, 3] + [6] * 256)
    writer.add_chat_template(TEMPLATE)
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
params.model.path = write_model(f"{sys.argv[1]}/model.gguf")
params.n_ctx, params.n_parallel, params.port, params.verbosity = 256, 1, 0, 0
server = xllamacpp.Server(params)  # llama-server's own code, in this process


def in_llama(text):
    body = json.dumps({"messages": [{"role": "user", "content": text}]}).encode()
    with urllib.request.urlopen(urllib.request.Request(server.listening_address + "/apply-template", body, {"Content-Type": "application/json"})) as answer:
        return json.load(answer)["prompt"]


def in_python(text):
    return jinja2.Template(TEMPLATE).render(messages=[{"role": "user", "content": text}])


seen = {text: (in_python(text), in_llama(text)) for text in ("abc", "été")}
print("version:   xllamacpp", importlib.metadata.version("xllamacpp"), "(llama.cpp's server inside), jinja2", importlib.metadata.version("jinja2"))
print("expected:  a template gives the same prompt in llama.cpp as in Python, in any language")
print("behaviour: lengths and slices are of bytes there, and upper-casing is of ASCII alone")
print(f"seen:      length, first letter and upper case: {seen} (Python, llama.cpp; U+FFFD: half a letter)")
sys.exit(seen != {"abc": ("3 a ABC", "3 a ABC"), "été": ("3 é ÉTÉ", "5 \ufffd éTé")})
PYTHON
