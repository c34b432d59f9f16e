#!/bin/sh
# llama-server's --lora-init-without-apply says that it loads adapters without applying them, until POST /lora-adapters does. One would
# think that requests which name no adapter are computed without until then. They are computed with all of them, at their full scale, as without
# the flag, and GET /lora-adapters says so: the flag leaves the context alone when the model is loaded, and each request then sets the
# context's adapters by the server's own list, in which their scales are still those of the command line.
# Source: llama.cpp 0c1e570 common/common.cpp, common_init_from_params (lora_init_without_apply); common/arg.cpp, its help;
# tools/server/server-context.cpp, launch_slot_with_task (slot.lora = params_base.lora_adapters).
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

folder = sys.argv[1]
tokens = ["<unk>", "<s>", "</s>", *"▁abcdefghijklmnopqrstuvwxyz"]
random = numpy.random.default_rng(1)


def write(path, tensors, add_metadata):
    writer = gguf.GGUFWriter(path, "llama")
    add_metadata(writer)
    for name, shape in tensors.items():
        weights = numpy.ones(shape) if name.endswith("norm.weight") else random.normal(size=shape)
        writer.add_tensor(name, weights.astype(numpy.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def of_model(writer):
    """A valid llama of one layer whose vocabulary is the letters."""
    writer.add_block_count(1)
    writer.add_context_length(256)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(32)
    writer.add_head_count(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * len(tokens))
    writer.add_token_types([2, 3, 3] + [1] * (len(tokens) - 3))


def of_adapter(writer):
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 4.0)


square = {f"blk.0.{part}.weight": (32, 32) for part in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")}
norms = {name: (32,) for name in ("output_norm.weight", "blk.0.attn_norm.weight", "blk.0.ffn_norm.weight")}
low_rank = {"blk.0.ffn_down.weight.lora_a": (4, 32), "blk.0.ffn_down.weight.lora_b": (32, 4)}
params = xllamacpp.CommonParams()
params.model.path = write(f"{folder}/model.gguf", {"token_embd.weight": (len(tokens), 32)} | square | norms, of_model)
params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(write(f"{folder}/adapter.gguf", low_rank, of_adapter), 1.0)]
params.lora_init_without_apply = True
params.n_ctx, params.n_parallel, params.port, params.verbosity = 256, 1, 0, 0
server = xllamacpp.Server(params)  # llama-server's own code, in this process


def ask(path, body=None):
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(server.listening_address + path, data, {"Content-Type": "application/json"})) as answer:
        return json.load(answer)


def logprob(**fields):
    """Of the likeliest token behind a prompt."""
    body = {"prompt": "abc", "n_predict": 1, "n_probs": 1, "temperature": 0, "cache_prompt": False, **fields}
    return round(ask("/completion", body)["completion_probabilities"][0]["logprob"], 4)


scale = ask("/lora-adapters")[0]["scale"]
unnamed, applied, without = logprob(), logprob(lora=[{"id": 0, "scale": 1.0}]), logprob(lora=[{"id": 0, "scale": 0.0}])
print("version:   xllamacpp", importlib.metadata.version("xllamacpp"), "(llama.cpp's server inside)")
print("expected:  with --lora-init-without-apply a request that names no adapter is computed without")
print("behaviour: it is computed with all of them, before anything was posted to /lora-adapters")
print(f"seen:      log-probability {unnamed} where none is named, {applied} with the adapter, {without} without; /lora-adapters says scale {scale}")
sys.exit(not (unnamed == applied != without and scale == 1))
PYTHON
