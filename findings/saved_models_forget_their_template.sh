#!/bin/sh
# llama_model_save_to_file writes a loaded model as a GGUF: the same model, one would think. It writes what llama.cpp keeps of a file rather
# than the file: the chat template is gone, as are author, licence, tags and each key that llama.cpp doesn't know, and a hundred others have
# come, zeros mostly, with a RoPE scaling ("linear", factor 0) that the file never had. The saved file loads without a word, and a chat
# with it is held in another template's words.
# Source: llama.cpp 0c1e570 src/llama-model-saver.cpp, llama_model_saver::add_kv_from_model.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet 'xllamacpp==2026.10.11549' 'gguf==0.19.0'
"$folder/env/bin/python" - "$folder" <<'PYTHON'
import ctypes
import importlib.metadata
import sys

import gguf
import numpy
import xllamacpp


def write_model(path):
    """A valid llama of one layer, all weights zero, whose vocabulary is the letters."""
    tokens = ["<unk>", "<s>", "</s>", *"▁abcdefghijklmnopqrstuvwxyz"]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_context_length(512)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(32)
    writer.add_head_count(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_author("somebody")
    writer.add_license("mit")
    writer.add_string("training.run", "17")
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * len(tokens))
    writer.add_token_types([2, 3, 3] + [1] * (len(tokens) - 3))
    writer.add_chat_template("{% for message in messages %}{{ message['content'] }}{% endfor %}")
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
llama.llama_model_save_to_file.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
silence = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(lambda _level, _text, _: None)
llama.llama_log_set(silence, None)


def load(path):
    return llama.llama_model_load_from_file(path.encode(), llama.llama_model_default_params())


def keys(path):
    return {name for name in gguf.GGUFReader(path).fields if not name.startswith("GGUF.")}


path, saved = sys.argv[1] + "/model.gguf", sys.argv[1] + "/saved.gguf"
write_model(path)
llama.llama_model_save_to_file(load(path), saved.encode())
loads = bool(load(saved))
lost, come = keys(path) - keys(saved), keys(saved) - keys(path)
factor = gguf.GGUFReader(saved).get_field("llama.rope.scaling.factor").contents()
print("version:   xllamacpp", importlib.metadata.version("xllamacpp"), "(llama.cpp inside)")
print("expected:  a model that was loaded and saved is the model that it was")
print("behaviour: its chat template and all that llama.cpp doesn't use are lost, and more than a hundred keys have come")
print(f"seen:      lost: {sorted(lost)}; come: {len(come)}, llama.rope.scaling.factor {factor} among them; the saved one loads: {loads}")
forgotten = {"general.author", "general.license", "tokenizer.chat_template", "training.run"}
sys.exit(not (lost == forgotten and len(come) > 100 and factor == 0 and loads))
PYTHON
