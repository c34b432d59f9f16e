#!/bin/sh
# An answer that ends because its tokens ran out is to be told from one that is whole: OpenAI's Responses say status "incomplete" and the reason,
# "max_output_tokens", as finish_reason "length" does in chats, and agents by this API ask again or refuse such an answer. llama.cpp's
# /v1/responses says "completed" of each answer, of half a sentence and of half a tool call too, streamed and whole. Only the number of
# output tokens tells, to who knows the limit.
# Source: llama.cpp 0c1e570 tools/server/server-task.cpp, server_task_result_cmpl_final::to_json_oaicompat_resp ("status"),
# to_json_oaicompat_resp_stream (response.completed); to_json_oaicompat_chat (finish_reason "length").
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

tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "hello"]


def write_model(path):
    """A valid llama of one layer that says "hello" without an end."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_context_length(1024)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(32)
    writer.add_head_count(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * len(tokens))
    writer.add_token_types([2, 3, 3] + [6] * 256 + [1, 4])
    embedding, output = numpy.zeros((2, len(tokens), 32))
    embedding[:, 0] = output[-1, 0] = 1  # behind any token comes "hello"
    ends = {"token_embd.weight": embedding, "output.weight": 100 * output}
    square = {f"blk.0.{part}.weight": numpy.zeros((32, 32)) for part in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")}
    norms = {name: numpy.ones(32) for name in ("output_norm.weight", "blk.0.attn_norm.weight", "blk.0.ffn_norm.weight")}
    for name, weights in (ends | square | norms).items():
        writer.add_tensor(name, weights.astype(numpy.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


params = xllamacpp.CommonParams()
params.model.path = write_model(f"{sys.argv[1]}/model.gguf")
params.n_ctx, params.n_parallel, params.port, params.verbosity = 1024, 1, 0, 0
server = xllamacpp.Server(params)  # llama-server's own code, in this process

client = openai.OpenAI(base_url=server.listening_address + "/v1", api_key="none", max_retries=0)
chat = client.chat.completions.create(model="model", messages=[{"role": "user", "content": "Hello"}], max_tokens=3)
whole = client.responses.create(model="model", input="Hello", max_output_tokens=3)
*_, last = client.responses.create(model="model", input="Hello", max_output_tokens=3, stream=True)
seen = chat.choices[0].finish_reason, whole.status, whole.incomplete_details, last.type, last.response.status
print("version:   openai", importlib.metadata.version("openai") + ", xllamacpp", importlib.metadata.version("xllamacpp"), "(llama.cpp's server inside)")
print('expected:  an answer cut by max_output_tokens is "incomplete", as it has finish_reason "length" in a chat')
print('behaviour: /v1/responses says "completed" of it')
print(f"seen:      of {whole.usage.output_tokens} tokens of an endless answer: chat {seen[0]!r}, response {seen[1:3]}, streamed {seen[3:]}")
sys.exit(seen != ("length", "completed", None, "response.completed", "completed"))
PYTHON
