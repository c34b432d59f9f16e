#!/bin/sh
# hf-mem estimates a GGUF's KV cache from the keys of its header, for the context that the file names. It takes the last key whose name ends in
# "context_length", and behind phi3.context_length, 131,072, stands phi3.rope.scaling.original_context_length, 4,096: the cache of Phi-3 Mini
# comes out 32 times too small, as does that of each model with YaRN or LongRoPE. The head's size it divides out, width by heads, although
# Qwen3's header names it and it is twice that; from the same model's safetensors it takes the one that is named.
# Source: hf-mem 0.5.6 hf_mem/gguf/metadata.py, parse_gguf_metadata (key.endswith(ending)); hf_mem/gguf/kv_cache.py, compute_gguf_kv_cache_size;
# llama.cpp 0c1e570 src/llama-model.cpp, llama_model_base::load_hparams (n_embd_head_k).
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet 'hf-mem==0.5.6' 'gguf==0.19.0'
"$folder/env/bin/python" - "$folder" <<'PYTHON'
import importlib.metadata
import sys
from pathlib import Path

import gguf
from hf_mem.gguf.metadata import parse_gguf_metadata
from hf_mem.safetensors.kv_cache import compute_safetensors_kv_cache_size

path = Path(sys.argv[1]) / "model.gguf"


def estimated(arch, n_layer, width, n_head, n_head_kv, context, head=None, original=None):
    """Tokens and MiB of the KV cache by hf-mem, from a header with these keys in the order that llama.cpp's converter writes them in."""
    writer = gguf.GGUFWriter(path, arch)
    writer.add_block_count(n_layer)
    writer.add_context_length(context)
    writer.add_embedding_length(width)
    writer.add_head_count(n_head)
    writer.add_head_count_kv(n_head_kv)
    if head:
        writer.add_key_length(head)
        writer.add_value_length(head)
    if original:
        writer.add_rope_scaling_orig_ctx_len(original)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    cache = parse_gguf_metadata(path.read_bytes(), experimental=True).kv_cache
    return cache.max_model_len, cache.cache_size / 2**20


def true_mib(n_layer, n_head_kv, head, context):
    return 2 * n_layer * n_head_kv * head * context * 2 / 2**20


phi = estimated("phi3", 32, 3072, 32, 32, 131072, original=4096), true_mib(32, 32, 96, 131072)
qwen = estimated("qwen3", 28, 1024, 16, 8, 40960, head=128), true_mib(28, 8, 128, 40960)
config = {"hidden_size": 1024, "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "num_hidden_layers": 28}
by_config = compute_safetensors_kv_cache_size(config, "F16", 40960) / 2**20
print("version:   hf-mem", importlib.metadata.version("hf-mem"))
print("expected:  Phi-3 Mini's cache for 131072 tokens, Qwen3-0.6B's with heads of 128")
print("behaviour: Phi-3 Mini's for 4096, Qwen3-0.6B's with heads of 64; from its safetensors with 128")
print(f"seen:      Phi-3 Mini: {phi[0]} MiB for {phi[1]}; Qwen3-0.6B: {qwen[0]} MiB for {qwen[1]}, by its config.json {by_config}")
sys.exit((phi, qwen, by_config) != (((4096, 1536.0), 49152.0), ((40960, 2240.0), 4480.0), 4480.0))
PYTHON
