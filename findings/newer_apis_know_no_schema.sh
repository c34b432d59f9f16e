#!/bin/sh
# OpenAI's newer API, /v1/responses, takes a schema for an answer as `text.format`, Anthropic's /v1/messages as `output_config.format`; their clients write
# it of a Pydantic model (responses.parse, messages.parse). llama.cpp's server has both endpoints, and keeps a model to a schema in
# /v1/chat/completions. In the newer two it takes what it doesn't read for nothing said: the schema is neither in the grammar nor in the prompt, and there
# is no error and no warning. The answer is free text, which the client then can't parse.
# Source: llama.cpp 0c1e570 tools/server/server-chat.cpp, server_chat_convert_responses_to_chatcmpl (no "text"), server_chat_convert_anthropic_to_oai (the
# list of what is passed on); tools/server/server-common.cpp, oaicompat_chat_params_parse ("response_format").
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet 'xllamacpp==2026.10.11549' 'gguf==0.19.0' 'openai==3.57.0' 'anthropic==2.14.0'
"$folder/env/bin/python" - "$folder" <<'PYTHON'
import importlib.metadata
import sys
import typing

import anthropic
import gguf
import numpy
import openai
import pydantic
import xllamacpp

tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "hello"]


def write_model(path):
    """A valid llama of one layer that says "hello" and ends."""
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
    embedding[:-1, 0] = output[-1, 0] = 1  # behind any other token comes "hello",
    embedding[-1, 1] = output[2, 1] = 1  # and behind it the end
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


class Place(pydantic.BaseModel):
    city: typing.Literal["Oslo", "Lima"]


def answered(parse, **fields):
    """Whether the answer fits the schema, by the client's own check."""
    try:
        return bool(parse(model="model", **fields))
    except (pydantic.ValidationError, openai.LengthFinishReasonError):
        return False


of_openai = openai.OpenAI(base_url=server.listening_address + "/v1", api_key="none", max_retries=0)
of_anthropic = anthropic.Anthropic(base_url=server.listening_address, api_key="none", max_retries=0)
messages = [{"role": "user", "content": "Where?"}]
seen = {
    "chat.completions.parse": answered(of_openai.chat.completions.parse, messages=messages, response_format=Place, max_tokens=200),
    "responses.parse": answered(of_openai.responses.parse, input="Where?", text_format=Place, max_output_tokens=200),
    "messages.parse": answered(of_anthropic.messages.parse, messages=messages, output_format=Place, max_tokens=200),
}
versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("openai", "anthropic", "xllamacpp"))
print("version:  ", versions, "(llama.cpp's server inside)")
print("expected:  an answer by the schema from each of the server's three endpoints for chats")
print("behaviour: /v1/chat/completions keeps the model to it; /v1/responses and /v1/messages pass over it")
print(f"seen:      whether a model that would say hello answers by the schema: {seen}")
sys.exit(seen != {"chat.completions.parse": True, "responses.parse": False, "messages.parse": False})
PYTHON
