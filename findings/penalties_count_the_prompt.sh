#!/bin/sh
# OpenAI's frequency and presence penalties are about what an answer has said; a prompt's words, one would think, are free to be used in it, and what
# was said once stays counted. In llama.cpp's server the prompt counts, and only the last 64 tokens of prompt and answer do. So a question
# that names a thing four times has made it fifty times less likely in its answer's first word, with a penalty of 1; and a word
# that an answer has said ten times is as new again, 64 tokens later.
# Source: llama.cpp 0c1e570 tools/server/server-context.cpp, server_slot::init_sampler (common_sampler_accept for each token of the
# prompt); common/common.h, common_params_sampling.penalty_last_n (64).
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


def likelihood(prompt, penalty):
    """Of "a" as an answer's first token, in percent of that of "b", which a model of zeros finds as likely."""
    sampled = {"n_predict": 1, "n_probs": len(tokens), "post_sampling_probs": True, "top_k": 0, "top_p": 1, "temperature": 1, "min_p": 0, "ignore_eos": True}
    half = [[tokens.index(f"<0x{byte:02X}>"), False] for byte in range(128, 256)]  # bytes that are no letter by themselves
    answer = ask("/completion", prompt=prompt, frequency_penalty=penalty, logit_bias=half, cache_prompt=False, **sampled)
    share = {one["id"]: one["prob"] for one in answer["completion_probabilities"][0]["top_probs"]}
    return round(100 * share[tokens.index("a")] / share[tokens.index("b")], 1)


without, named, forgotten = likelihood("aaaa", 0.0), likelihood("aaaa", 1.0), likelihood("a" * 10 + "c" * 64, 1.0)
print("version:   xllamacpp", importlib.metadata.version("xllamacpp"), "(llama.cpp's server inside)")
print("expected:  frequency_penalty leaves an answer's first token as it is, and counts all that was said")
print("behaviour: the prompt's tokens are counted, and of prompt and answer the last 64 alone")
print(f'seen:      "a" is {without} % as likely as "b" after "aaaa" without a penalty, {named} % with one of 1, {forgotten} % after ten and 64 of another token')
sys.exit((without, named, forgotten) != (100.0, 1.8, 100.0))
PYTHON
