#!/bin/sh
# The buffer for intermediate results should depend on how wide and how deep a model is. With llama.cpp's defaults it is mostly logits:
# n_outputs_max = 0 means "as many as n_batch", so room is kept for a vocabulary's worth of floats for each of 512 tokens of a prompt,
# though generation wants those of its last token alone. With n_outputs_max = 1 a vocabulary of 152,064 takes a 60th of it.
# Source: llama.cpp 0c1e570 src/llama-context.cpp, llama_context::llama_context (n_outputs_max), llama_context::sched_reserve (n_outputs_pp).
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
write_model(path, n_vocab=152064, n_embd=64, n_head=2)


def compute_mib(**wanted):
    _, text = new_context(path, n_ctx=4096, **wanted)
    return float(re.findall(r"compute buffer size = +([\d.]+) MiB", text)[-1])


by_default, one_row = compute_mib(), compute_mib(n_outputs_max=1)
logits = 152064 * 512 * 4 / 2**20
print("version:   xllamacpp", importlib.metadata.version("xllamacpp"), "(llama.cpp inside)")
print("expected:  a few MiB for one layer of width 64, whatever the vocabulary")
print("behaviour: logits of all 512 tokens of a batch have their place in the buffer unless n_outputs_max says otherwise")
print(f"seen:      compute buffer {by_default} MiB by default, {one_row} MiB with n_outputs_max=1; logits of 512 tokens are {logits:.0f} MiB")
sys.exit(not (by_default > logits and one_row < 10))
PYTHON
