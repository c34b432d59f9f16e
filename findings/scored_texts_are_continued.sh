#!/bin/sh
# `echo` with `max_tokens: 0` and `logprobs` is how OpenAI's completions score a text: nothing is generated, and each token of the prompt comes with
# its log-probability. llama.cpp's server has completions of that form, and one would have such scores or an error. It passes over echo and takes
# the 0 for 1: the answer is one token that the model made up, with that one's log-probability, in the shape that chats have (`content`), so
# `token_logprobs` isn't there.
# Source: llama.cpp 0c1e570 tools/server/server-task.cpp, server_task_result_cmpl_final::to_json_oaicompat; tools/server/server-schema.cpp,
# make_llama_cmpl_schema ("n_predict": "When 0, no tokens will be generated", "echo").
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

TEMPLATE = "{% for m in messages %}{{ m.content }}{% endfor %}"
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


answer = ask("/v1/completions", prompt="abc", echo=True, max_tokens=0, logprobs=1, logit_bias=[[tokens.index("z"), 100]])
[choice] = answer["choices"]
seen = choice["text"], answer["usage"]["completion_tokens"], sorted(choice["logprobs"]), len(choice["logprobs"]["content"])
print("version:   xllamacpp", importlib.metadata.version("xllamacpp"), "(llama.cpp's server inside)")
print('expected:  "abc" with echo, logprobs and max_tokens 0 comes back with the log-probabilities of its tokens, in token_logprobs')
print("behaviour: a token is generated and scored, none of the prompt's is")
print(f"seen:      text, tokens generated, keys of logprobs, tokens in them: {seen}")
sys.exit(seen != ("z", 1, ["content"], 1))
PYTHON
