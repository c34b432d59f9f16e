#!/bin/sh
# Control tokens of a GGUF, of type 3, stay whole where text is split: in llama.cpp, and one would think in the tokenizer that Transformers
# makes of the same file. There <|im_start|> does, but DeepSeek's <｜User｜> comes out as twelve tokens of one byte each: in a byte-level
# vocabulary a control token with a character outside its alphabet, as the wide bars are, is held for a mislabelled one and not
# added. A chat template's prompt so is another one for each of the two.
# Source: transformers 5.23.0 src/transformers/integrations/gguf/gguf_tokenizer_mapping.py, add_gguf_special_tokens, byte_level_tokenizer;
# llama.cpp 0c1e570 src/llama-vocab.cpp, llama_vocab::impl::tokenizer_st_partition.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet 'transformers==5.23.0' 'gguf==0.19.0' 'xllamacpp==2026.10.11549'
TRANSFORMERS_VERBOSITY=error "$folder/env/bin/python" - "$folder" <<'PYTHON'
import ctypes
import importlib.metadata
import sys

import gguf
import numpy
import xllamacpp
from transformers.convert_slow_tokenizer import bytes_to_unicode
from transformers.integrations.gguf.gguf_tokenizer_mapping import convert_gguf_tokenizer

NORMAL, CONTROL = gguf.TokenType.NORMAL, gguf.TokenType.CONTROL
controls = ["<|im_start|>", "<｜User｜>"]
tokens = [*bytes_to_unicode().values(), "ab", *controls]
kinds = [NORMAL] * 257 + [CONTROL] * 2
merges = ["a b"]


def write_model(path):
    """A valid llama of one layer with this vocabulary, all weights zero."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_context_length(512)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(32)
    writer.add_head_count(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(merges)
    square = {f"blk.0.{part}.weight": (32, 32) for part in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")}
    norms = {name: (32,) for name in ("output_norm.weight", "blk.0.attn_norm.weight", "blk.0.ffn_norm.weight")}
    for name, shape in ({"token_embd.weight": (len(tokens), 32)} | square | norms).items():
        writer.add_tensor(name, numpy.zeros(shape, numpy.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class ModelParams(ctypes.Structure):
    _fields_ = [("words", ctypes.c_int64 * 11)]


# xllamacpp's module exports llama.cpp's C interface.
llama = ctypes.CDLL(xllamacpp.xllamacpp.__file__)
llama.llama_model_default_params.restype = ModelParams
llama.llama_model_load_from_file.restype = ctypes.c_void_p
llama.llama_model_load_from_file.argtypes = [ctypes.c_char_p, ModelParams]
llama.llama_model_get_vocab.restype = ctypes.c_void_p
llama.llama_model_get_vocab.argtypes = [ctypes.c_void_p]
ids = ctypes.c_int32 * 64
llama.llama_tokenize.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int32, ids, ctypes.c_int32, ctypes.c_bool, ctypes.c_bool]
silence = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(lambda _level, _text, _: None)
llama.llama_log_set(silence, None)

path = sys.argv[1] + "/model.gguf"
write_model(path)
model = llama.llama_model_load_from_file(path.encode(), llama.llama_model_default_params())
fields = {"tokenizer_type": "gpt2", "pre_tokenizer_type": "qwen2", "tokens": tokens, "token_type": kinds, "merges": merges}
theirs, _ = convert_gguf_tokenizer("llama", fields)


def by_llama(text):
    found = ids()
    data = text.encode()
    n = llama.llama_tokenize(llama.llama_model_get_vocab(model), data, len(data), found, 64, False, True)
    return [tokens[i] for i in found[:n]]


seen = {control: (by_llama(control + "ab"), theirs.encode(control + "ab").tokens) for control in controls}
print("version:   transformers", importlib.metadata.version("transformers"), "xllamacpp", importlib.metadata.version("xllamacpp"))
print("expected:  a control token is one token in both")
print("behaviour: in Transformers' one with a character outside of the byte alphabet falls to pieces")
print("seen:     ", "; ".join(f"{text}ab: llama.cpp {ours}, Transformers {others}" for text, (ours, others) in seen.items()))
whole = all(ours == [text, "ab"] for text, (ours, _) in seen.items())
sys.exit(not (whole and [len(others) for _, others in seen.values()] == [2, 13]))
PYTHON
