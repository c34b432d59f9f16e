#!/bin/sh
# Of a hybrid model (LFM2, Granite 4 H, Nemotron-H, Jamba) most layers keep no KV cache, and the GGUF says so: attention.head_count_kv is a list with
# a 0 for each of them. gguf-view, which comes with @huggingface/gguf, estimates the cache from that list, but takes a 0 for nothing
# said, and a layer without heads for one in which each head has its own keys. For the heads below, LFM2's, that is almost eight times the cache.
# Source: @huggingface/gguf 0.4.6 src/cli.ts, calcMemoryUsage (if (n_head_kv[i])); llama.cpp 0c1e570 src/models/lfm2.cpp,
# load_arch_hparams (a layer of 0 heads is recurrent).
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet 'gguf==0.19.0'
npm install --silent --no-audit --no-fund --prefix "$folder" '@huggingface/gguf@0.4.6'
"$folder/env/bin/python" - "$folder" <<'PYTHON'
import importlib.metadata
import re
import subprocess
import sys

import gguf
import numpy

folder = sys.argv[1]
HEADS_KV = [0, 0, 8, 0, 0, 8, 0, 0, 8, 0, 8, 0, 8, 0, 8, 0]  # of LFM2 1.2B


def k_cache(heads_kv):
    """In GB, as gguf-view estimates it for 32,768 tokens."""
    writer = gguf.GGUFWriter(f"{folder}/model.gguf", "lfm2")
    writer.add_block_count(16)
    writer.add_context_length(128000)
    writer.add_embedding_length(2048)
    writer.add_head_count(32)
    writer.add_head_count_kv(heads_kv)
    writer.add_tensor("token_embd.weight", numpy.zeros((2, 2048), numpy.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    command = [f"{folder}/node_modules/.bin/gguf-view", "--context", "32768", f"{folder}/model.gguf"]
    return float(re.search(r"K cache +\| +([\d.]+) GB", subprocess.run(command, capture_output=True, text=True, check=True).stdout)[1])


right = 6 * 8 * 64 * 2 * 32768 / 1e9  # six layers of 8 heads of 64 in F16
seen = k_cache(HEADS_KV), k_cache(8), round(right, 2)
print("version:   @huggingface/gguf 0.4.6, gguf", importlib.metadata.version("gguf"))
print("expected:  layers of 0 KV heads have no KV cache")
print("behaviour: they are counted with all heads of their queries")
print(f"seen:      K cache of {seen[0]} GB for six layers of 8 heads and ten of 0; {seen[1]} for sixteen of 8; six are {seen[2]}")
sys.exit(seen != (1.54, 0.54, 0.2))
PYTHON
