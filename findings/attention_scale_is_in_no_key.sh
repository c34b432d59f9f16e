#!/bin/sh
# A GGUF's header should say all that a reader needs to compute with its weights. Of Gemma 2 and 3 it doesn't say what queries are scaled
# by: the root of a head's size, but in the models of 27 billion the root of the width by the heads (144 for heads of 128). llama.cpp knows
# a 27B by its number of layers, 46 or 62. Transformers, reading the same file, takes its configuration's default, 256, which is right for 2B and
# 9B only: in Gemma 2 27B all attention is computed with three quarters of its scores, from the second token on.
# Source: transformers 5.23.0 src/transformers/integrations/ggml.py, GGUF_CONFIG_MAPPING; src/transformers/models/gemma2/configuration_gemma2.py,
# Gemma2Config.query_pre_attn_scalar; llama.cpp 0c1e570 src/models/gemma2.cpp, gemma3.cpp, load_arch_hparams (LLM_TYPE_27B).
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --no-compile 'torch==2.13.0' 'transformers==5.23.0' 'accelerate==1.15.0' 'gguf==0.19.0' 'xllamacpp==2026.10.11549'
TRANSFORMERS_VERBOSITY=error "$folder/env/bin/python" - "$folder" 2>"$folder/log" <<'PYTHON' || { cat "$folder/log" >&2; exit 1; }
import importlib.metadata
import json
import sys
import urllib.request

import gguf
import numpy
import torch
import xllamacpp
from transformers import AutoModelForCausalLM

folder = sys.argv[1]
WIDTH, FEED = 144, 32
TOKENS = ["<unk>", "<s>", "</s>", *"▁abcdefghijklmnopqrstuvwxyz"]
letters = numpy.random.default_rng(2).integers(4, len(TOKENS), size=40).tolist()


def write_model(name, n_layer, head):
    """A valid gemma2 with one head, whose vocabulary is the letters."""
    random = numpy.random.default_rng(1)
    writer = gguf.GGUFWriter(f"{folder}/{name}", "gemma2")
    writer.add_name(name)
    writer.add_block_count(n_layer)
    writer.add_context_length(8192)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(FEED)
    writer.add_head_count(1)
    writer.add_head_count_kv(1)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_attn_logit_softcapping(50.0)
    writer.add_final_logit_softcapping(30.0)
    writer.add_sliding_window(4096)
    writer.add_vocab_size(len(TOKENS))
    writer.add_tokenizer_model("llama")
    writer.add_token_list(TOKENS)
    writer.add_token_scores([0.0] * len(TOKENS))
    writer.add_token_types([2, 3, 3] + [1] * (len(TOKENS) - 3))
    shapes = {"token_embd.weight": (len(TOKENS), WIDTH)}
    for layer in range(n_layer):
        block = {"attn_q": (head, WIDTH), "attn_k": (head, WIDTH), "attn_v": (head, WIDTH), "attn_output": (WIDTH, head)}
        block |= {"ffn_gate": (FEED, WIDTH), "ffn_up": (FEED, WIDTH), "ffn_down": (WIDTH, FEED)}
        shapes |= {f"blk.{layer}.{part}.weight": shape for part, shape in block.items()}
    for tensor, shape in shapes.items():
        scale = 0.4 if ".attn_" in tensor else 0.12  # so that attention has a part in what comes out
        writer.add_tensor(tensor, random.normal(scale=scale, size=shape).astype(numpy.float32))
    norms = [f"blk.{layer}.{part}.weight" for layer in range(n_layer) for part in ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm")]
    for tensor in [*norms, "output_norm.weight"]:
        writer.add_tensor(tensor, numpy.full(WIDTH, 1.0 if "attention" in tensor else 0.3, numpy.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def by_transformers(name):
    """Log-probability of the likeliest token behind the letters, and what it is with queries scaled by the root of width by heads."""
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32, attn_implementation="eager")

    def computed():
        with torch.no_grad():
            return round(float(torch.log_softmax(model(torch.tensor([letters])).logits[0, -1], -1).max()), 3)

    found = computed()
    for layer in model.model.layers:
        layer.self_attn.scaling = WIDTH**-0.5
    return found, computed()


def by_llama(name):
    params = xllamacpp.CommonParams()
    params.model.path = f"{folder}/{name}"
    params.n_ctx, params.n_parallel, params.port, params.verbosity = 256, 1, 0, 0
    server = xllamacpp.Server(params)
    body = {"prompt": letters, "n_predict": 1, "n_probs": 1, "temperature": 0}
    request = urllib.request.Request(server.listening_address + "/completion", json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        return round(json.load(answer)["completion_probabilities"][0]["logprob"], 3)


write_model("9b.gguf", n_layer=42, head=256)
write_model("27b.gguf", n_layer=46, head=128)
nine, (by_config, _) = by_llama("9b.gguf"), by_transformers("9b.gguf")
twenty_seven, (by_default, told) = by_llama("27b.gguf"), by_transformers("27b.gguf")
print("version:   transformers", importlib.metadata.version("transformers"), "torch", torch.__version__, "xllamacpp", importlib.metadata.version("xllamacpp"))
print("expected:  Transformers computes what llama.cpp does, with Gemma 2's layers and heads of 9B and of 27B")
print("behaviour: with 9B's; with 27B's only if it is told what the file doesn't say")
print(f"seen:      log-probability of llama.cpp and Transformers: 9B's {nine}, {by_config}; 27B's {twenty_seven}, {by_default}, and {told} with the root of 144")
sys.exit(not (abs(nine - by_config) < 0.02 and abs(twenty_seven - told) < 0.02 and abs(twenty_seven - by_default) > 0.05))
PYTHON
