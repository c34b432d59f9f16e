#!/bin/sh
# A client that asks for embeddings of `dimensions: 8` gets 8 numbers, or an error from a server that can't. llama.cpp's server gives all that the
# model has, without a word: an index that was made for 8 takes none of them, and who asked a Matryoshka model for 256 of 768 pays for all. The
# client has to cut them itself, and then to bring what is left to length 1 again.
# Source: llama.cpp 0c1e570 tools/server/server-context.cpp, handle_embeddings_impl (reads input and encoding_format).
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet 'xllamacpp==2026.10.11549' 'gguf==0.19.0' 'openai==3.57.0'
"$folder/env/bin/python" - "$folder" <<'PYTHON'
import importlib.metadata
import sys

import gguf
import numpy
import openai
import xllamacpp

TEMPLATE = ""
tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *"abcdefghijklmnopqrstuvwxyz"]


def write_model(path, template):
    """A valid llama of one layer, all weights zero, whose vocabulary is the bytes and letters."""
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
    writer.add_token_types([2, 3, 3] + [6] * 256 + [1] * 27)
    writer.add_chat_template(template)
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
params.model.path = write_model(f"{sys.argv[1]}/model.gguf", TEMPLATE)
params.n_ctx, params.n_parallel, params.port, params.verbosity = 256, 1, 0, 0
params.embedding, params.pooling_type = True, xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
server = xllamacpp.Server(params)  # llama-server's own code, in this process


client = openai.OpenAI(base_url=server.listening_address + "/v1", api_key="none")
seen = len(client.embeddings.create(model="model", input="abc", dimensions=8).data[0].embedding)
print("version:   xllamacpp", importlib.metadata.version("xllamacpp"), "(llama.cpp's server inside), openai", importlib.metadata.version("openai"))
print("expected:  embeddings of dimensions=8 have 8 numbers, or are refused")
print("behaviour: they have as many as the model's")
print(f"seen:      {seen} numbers of a model of 32")
sys.exit(seen != 32)
PYTHON
