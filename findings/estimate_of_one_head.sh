#!/bin/sh
# A GGUF without attention.head_count_kv has as many KV heads as heads: the specification says so, and llama.cpp reads it so.
# xllamacpp's own estimate of layers that fit a GPU takes 1 instead, and so a KV cache 32 times smaller for 32 heads than the one that
# the llama.cpp in the same wheel allocates.
# Source: xllamacpp 2026.10.11549 xllamacpp/memory.py, graph_size (head_count_kv_max); llama.cpp 0c1e570 src/llama-model.cpp,
# llama_model_base::load_hparams (n_head_kv_arr = n_head_arr).
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet 'xllamacpp==2026.10.11549' 'gguf==0.19.0'
"$folder/env/bin/python" - "$folder" <<'PYTHON'
import ctypes
import importlib.metadata
import re
import sys

import gguf
import numpy
import xllamacpp
from xllamacpp.memory import dump_metadata_json, graph_size


def write_model(path, n_vocab, n_embd, n_head):
    """A valid llama of one layer, all weights zero; no tokenizer, so only the size of the vocabulary."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_context_length(131072)
    writer.add_embedding_length(n_embd)
    writer.add_feed_forward_length(64)
    writer.add_head_count(n_head)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(n_vocab)
    writer.add_tokenizer_model("no_vocab")
    writer.add_token_list([f"t{i}" for i in range(n_vocab)])
    square = {f"blk.0.attn_{part}.weight": (n_embd, n_embd) for part in ("q", "k", "v", "output")}
    feed = {"blk.0.ffn_gate.weight": (64, n_embd), "blk.0.ffn_up.weight": (64, n_embd), "blk.0.ffn_down.weight": (n_embd, 64)}
    norms = {name: (n_embd,) for name in ("output_norm.weight", "blk.0.attn_norm.weight", "blk.0.ffn_norm.weight")}
    for name, shape in ({"token_embd.weight": (n_vocab, n_embd)} | square | feed | norms).items():
        writer.add_tensor(name, numpy.zeros(shape, numpy.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


# xllamacpp's module exports llama.cpp's C interface. Of llama_context_params, 168 bytes, we name the words that we set.
WORD = {"n_ctx": 0, "n_batch": 1, "n_seq_max": 3, "n_outputs_max": 5, "flash_attn_type": 13, "type_k": 26, "type_v": 27}


class ContextParams(ctypes.Structure):
    _fields_ = [("words", ctypes.c_int32 * 42)]


class ModelParams(ctypes.Structure):
    _fields_ = [("words", ctypes.c_int64 * 11)]


llama = ctypes.CDLL(xllamacpp.xllamacpp.__file__)
llama.llama_context_default_params.restype = ContextParams
llama.llama_model_default_params.restype = ModelParams
llama.llama_model_load_from_file.restype = ctypes.c_void_p
llama.llama_model_load_from_file.argtypes = [ctypes.c_char_p, ModelParams]
llama.llama_init_from_model.restype = ctypes.c_void_p
llama.llama_init_from_model.argtypes = [ctypes.c_void_p, ContextParams]
log = []
keep = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(lambda _level, text, _: log.append(text.decode()))
llama.llama_log_set(keep, None)


def new_context(path, **wanted):
    """What llama.cpp logs while it makes a context, and whether it made one."""
    model = llama.llama_model_load_from_file(path.encode(), llama.llama_model_default_params())
    params = llama.llama_context_default_params()
    defaults = [params.words[WORD[name]] for name in ("n_ctx", "n_batch", "n_seq_max", "flash_attn_type", "type_k", "type_v")]
    assert model and defaults == [512, 2048, 1, -1, 1, 1], f"another layout of llama_context_params: {defaults}"
    for name, value in wanted.items():
        params.words[WORD[name]] = value
    log.clear()
    return bool(llama.llama_init_from_model(model, params)), "".join(log)


path = sys.argv[1] + "/model.gguf"
write_model(path, n_vocab=256, n_embd=1024, n_head=32)
_, text = new_context(path, n_ctx=8192)
allocated = float(re.findall(r"KV buffer size = +([\d.]+) MiB", text)[-1])
metadata = dump_metadata_json(gguf.GGUFReader(path), path)["metadata"]
per_layer, _, _ = graph_size(metadata, context_length=8192, batch_size=512, num_parallel=1, kv_cache_type="f16")
estimated = sum(per_layer) / 2**20
print("version:   xllamacpp", importlib.metadata.version("xllamacpp"), "(llama.cpp inside)")
print("expected:  without head_count_kv the estimate counts head_count heads, as llama.cpp does")
print("behaviour: it counts one")
print(f"seen:      32 heads of 32, one layer, 8192 cells: estimated {estimated} MiB, allocated {allocated} MiB")
sys.exit((estimated, allocated) != (1.0, 32.0))
PYTHON
