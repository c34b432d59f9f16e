#!/bin/sh
# Llama 3.1 and later, of 131,072 tokens' context, divide their slow rotations by up to 32; in a GGUF the divisors are a tensor, rope_freqs.weight.
# YaRN's scaling is keys, rope.scaling.*. Transformers reads GGUF files of this architecture, and one would expect a model that computes what
# the file says. It passes over both without a word: such a file and one without scaling are the same model, with the rotations of
# Llama 3. Texts of some hundred tokens hide it; long ones are beyond what those rotations were trained for.
# Source: transformers 5.23.0 src/transformers/modeling_gguf_pytorch_utils.py, load_gguf_checkpoint; src/transformers/integrations/ggml.py,
# GGUF_CONFIG_MAPPING; llama.cpp 0c1e570 conversion/llama.py (rope_freqs), src/llama-model.cpp, llama_model::get_rope_factors.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --no-compile 'torch==2.13.0' 'transformers==5.23.0' 'accelerate==1.15.0' 'gguf==0.19.0' 'xllamacpp==2026.10.11549'
TRANSFORMERS_VERBOSITY=error "$folder/env/bin/python" - "$folder" 2>"$folder/log" <<'PYTHON' || { cat "$folder/log" >&2; exit 1; }
import importlib.metadata
import json
import math
import sys
import urllib.request

import gguf
import numpy
import torch
import xllamacpp
from transformers import AutoModelForCausalLM

folder = sys.argv[1]
WIDTH, HEAD, BASE, ORIGINAL, FACTOR = 128, 64, 500000.0, 8192, 32
TOKENS = ["<unk>", "<s>", "</s>", *"▁abcdefghijklmnopqrstuvwxyz"]
letters = numpy.random.default_rng(2).integers(4, len(TOKENS), size=1500)


def divisors():
    """Of Llama 3.2: 1 for rotations that turn four times within the original context, 32 for those that don't turn once."""
    turns = [ORIGINAL * BASE ** (-2 * i / HEAD) / (2 * math.pi) for i in range(HEAD // 2)]
    smooth = numpy.clip([(turn - 1) / (4 - 1) for turn in turns], 0, 1)
    return (1 / ((1 - smooth) / FACTOR + smooth)).astype(numpy.float32)


def write_model(name, rope_freqs=None, yarn=False):
    """A valid llama of one layer whose vocabulary is the letters."""
    random = numpy.random.default_rng(1)
    writer = gguf.GGUFWriter(f"{folder}/{name}", "llama")
    writer.add_name(name)
    writer.add_block_count(1)
    writer.add_context_length(131072)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(WIDTH)
    writer.add_head_count(WIDTH // HEAD)
    writer.add_head_count_kv(WIDTH // HEAD)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(HEAD)
    writer.add_rope_freq_base(BASE)
    if yarn:
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(4.0)
        writer.add_rope_scaling_orig_ctx_len(ORIGINAL)
    writer.add_vocab_size(len(TOKENS))
    writer.add_tokenizer_model("llama")
    writer.add_token_list(TOKENS)
    writer.add_token_scores([0.0] * len(TOKENS))
    writer.add_token_types([2, 3, 3] + [1] * (len(TOKENS) - 3))
    square = {f"blk.0.{part}.weight": (WIDTH, WIDTH) for part in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")}
    for tensor, shape in ({"token_embd.weight": (len(TOKENS), WIDTH)} | square).items():
        writer.add_tensor(tensor, random.normal(scale=0.15, size=shape).astype(numpy.float32))
    for tensor in ("output_norm.weight", "blk.0.attn_norm.weight", "blk.0.ffn_norm.weight"):
        writer.add_tensor(tensor, numpy.ones(WIDTH, numpy.float32))
    if rope_freqs is not None:
        writer.add_tensor("rope_freqs.weight", rope_freqs)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def by_transformers(name):
    """Log-probability of the likeliest token behind the letters."""
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32)
    with torch.no_grad():
        logits = model(torch.from_numpy(letters)[None]).logits[0, -1]
    return round(float(torch.log_softmax(logits, -1).max()), 3)


def by_llama(name):
    params = xllamacpp.CommonParams()
    params.model.path = f"{folder}/{name}"
    params.n_ctx, params.n_parallel, params.port, params.verbosity = 2048, 1, 0, 0
    server = xllamacpp.Server(params)
    body = {"prompt": letters.tolist(), "n_predict": 1, "n_probs": 1, "temperature": 0}
    request = urllib.request.Request(server.listening_address + "/completion", json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        return round(json.load(answer)["completion_probabilities"][0]["logprob"], 3)


write_model("plain.gguf")
write_model("llama-3.2.gguf", rope_freqs=divisors())
write_model("yarn.gguf", yarn=True)
names = ["plain.gguf", "llama-3.2.gguf", "yarn.gguf"]
theirs, llama = [by_transformers(name) for name in names], [by_llama(name) for name in names]
print("version:   transformers", importlib.metadata.version("transformers"), "torch", torch.__version__, "xllamacpp", importlib.metadata.version("xllamacpp"))
print("expected:  Transformers computes what llama.cpp does")
print("behaviour: it does without a scaling, and with one it computes as without")
print(f"seen:      log-probability behind {len(letters)} letters for {names}: llama.cpp {llama}, Transformers {theirs}")
same = abs(theirs[0] - llama[0]) < 0.01
sys.exit(not (same and theirs[0] == theirs[1] == theirs[2] and min(abs(value - llama[0]) for value in llama[1:]) > 0.03))
PYTHON
