#!/bin/sh
# What a token is, a GGUF says itself: its type (normal, user-defined, control), and which one ends a text. llama.cpp also has a list of
# spellings. In a model of HTML whose file names another EOS and has "</s>", the end of struck-out text, as a token of its own (user-defined,
# as "<s/>" is here), that one becomes a control token: a generation ends at it and doesn't show it, and in a prompt it falls to
# pieces. Only the log says so. The same goes for a word "<EOT>", "[EOS]" or "<|end|>" of whatever type.
# Source: llama.cpp 0c1e570 src/llama-vocab.cpp, llama_vocab::impl::load ("maintain a list of tokens that cause end-of-generation").
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

TAGS = ("</s>", "<s/>")
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6
tokens = ["<unk>", "<begin>", "<end>", "▁", *"abc", *TAGS, *(f"<0x{byte:02X}>" for byte in range(256))]
types = [UNKNOWN, CONTROL, CONTROL] + [NORMAL] * 4 + [USER_DEFINED] * 2 + [BYTE] * 256


def write_model(path):
    """A valid llama of one layer, all weights zero; a text of its vocabulary ends with <end>."""
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
    writer.add_token_types(types)
    writer.add_bos_token_id(tokens.index("<begin>"))
    writer.add_eos_token_id(tokens.index("<end>"))
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
params.model.path = write_model(f"{sys.argv[1]}/model.gguf")
params.n_ctx, params.n_parallel, params.port, params.verbosity = 256, 1, 0, 0
server = xllamacpp.Server(params)  # llama-server's own code, in this process


def ask(path, body):
    data = json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(server.listening_address + path, data, {"Content-Type": "application/json"})) as answer:
        return json.load(answer)


def of(tag):
    """In how many tokens a prompt has it; what a model that wants it, for three tokens, writes; and what ends that."""
    without, read = (len(ask("/tokenize", {"content": text, "parse_special": False})["tokens"]) for text in ("a", "a" + tag))
    wanted = {"prompt": "a", "n_predict": 3, "temperature": 0, "logit_bias": [[tokens.index(tag), 100.0]]}
    written = ask("/completion", wanted)
    return read - without, written["content"], written["stop_type"]


seen = {tag: of(tag) for tag in TAGS}
print("version:   xllamacpp", importlib.metadata.version("xllamacpp"), "(llama.cpp's server inside)")
print("expected:  two user-defined tokens are one like the other, and a text ends with the EOS that the file names")
print("behaviour: the one that is spelled like another model's end ends texts, too, and is read as pieces")
print(f"seen:      tokens when read, three of it written, and why that ended: {seen}")
sys.exit(seen != {"</s>": (4, "", "eos"), "<s/>": (1, "<s/><s/><s/>", "limit")})
PYTHON
