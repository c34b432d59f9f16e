#!/bin/sh
# The tokenizer of Llama 2, Mistral, Gemma and Phi-3 (tokenizer.ggml.model is "llama") joins the pair that was learnt first, again and again: its
# scores are the order of merges. mistral.rs, which makes its tokenizer of the GGUF if it is given nothing else, takes those scores for
# log-probabilities of a unigram model, and looks for the split whose sum is highest. Both decode to the same text, so nothing looks wrong;
# but the model reads tokens that it would never have been given in training.
# Source: mistralrs 0.9.5 mistralrs-core/src/gguf/gguf_tokenizer.rs, convert_gguf_metadata_to_hf_tokenizer ("llama" => unigram_tokenizer);
# llama.cpp 0c1e570 src/llama-vocab.cpp, llm_tokenizer_spm_session::tokenize; GGUF's specification, tokenizer.ggml.model.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet 'mistralrs==0.9.5' 'xllamacpp==2026.10.11549' 'gguf==0.19.0'
"$folder/env/bin/python" - "$folder" 2> "$folder/log" <<'PYTHON' || { code=$?; cat "$folder/log" >&2; exit $code; }
import importlib.metadata
import json
import sys
import urllib.request

import gguf
import mistralrs
import numpy
import xllamacpp

folder = sys.argv[1]
# "bc" was learnt before "ab", so it has the higher score; of single letters scores are the order in the vocabulary.
pieces = {"bc": -0.0, "ab": -1.0, "▁": -2.0, "c": -3.0, "b": -4.0, "a": -5.0}
tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *pieces]


def write_model(path):
    """A valid llama of one layer, all weights zero."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_context_length(256)
    writer.add_embedding_length(64)
    writer.add_feed_forward_length(64)
    writer.add_head_count(1)
    writer.add_head_count_kv(1)
    writer.add_rope_dimension_count(64)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * 259 + list(pieces.values()))
    writer.add_token_types([2, 3, 3] + [6] * 256 + [1] * len(pieces))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_chat_template("{% for m in messages %}{{ m['content'] }}{% endfor %}")
    square = {f"blk.0.{part}.weight": (64, 64) for part in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")}
    norms = {name: (64,) for name in ("output_norm.weight", "blk.0.attn_norm.weight", "blk.0.ffn_norm.weight")}
    for name, shape in ({"token_embd.weight": (len(tokens), 64), "output.weight": (len(tokens), 64)} | square | norms).items():
        writer.add_tensor(name, numpy.zeros(shape, numpy.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


params = xllamacpp.CommonParams()
params.model.path = write_model(f"{folder}/model.gguf")
params.n_ctx, params.n_parallel, params.port, params.verbosity = 256, 1, 0, 0
server = xllamacpp.Server(params)  # llama-server's own code, in this process
question = urllib.request.Request(server.listening_address + "/tokenize", b'{"content": "abc"}', {"Content-Type": "application/json"})
with urllib.request.urlopen(question) as answer:
    in_llama = json.load(answer)["tokens"]
runner = mistralrs.Runner(which=mistralrs.Which.GGUF(quantized_model_id=folder, quantized_filename="model.gguf"))
in_mistral = runner.tokenize_text("abc", False, None)
seen = {name: [tokens[token] for token in split] for name, split in {"llama.cpp": in_llama, "mistral.rs": in_mistral}.items()}
print("version:   mistralrs", importlib.metadata.version("mistralrs"), "xllamacpp", importlib.metadata.version("xllamacpp"), "(llama.cpp's server inside)")
print('expected:  "abc" is split by the merges that the scores are the order of, in both')
print("behaviour: mistral.rs splits it by the highest sum of scores")
print(f"seen:      {seen}")
sys.exit(seen != {"llama.cpp": ["▁", "a", "bc"], "mistral.rs": ["▁", "ab", "c"]})
PYTHON
