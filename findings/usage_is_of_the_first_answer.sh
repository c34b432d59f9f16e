#!/bin/sh
# `n` answers to a chat, or a list of prompts for completions, come in one reply, whose `usage` should count them all: that's what OpenAI bills, and
# what a benchmark divides by its seconds. llama.cpp's server takes the first answer's reply and appends the others' choices to it. The usage
# stays the first one's, so a batch of eight prompts seems to be as slow as one of them, and nobody has used what the other seven took. Its
# `timings` are the first one's too.
# Source: llama.cpp 0c1e570 tools/server/server-context.cpp, handle_completions_impl ("if multiple results in OAI format").
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
params.n_ctx, params.n_parallel, params.port, params.verbosity = 4096, 4, 0, 0
server = xllamacpp.Server(params)  # llama-server's own code, in this process

client = openai.OpenAI(base_url=server.listening_address + "/v1", api_key="none", max_retries=0)


def counted(reply):
    return len(reply.choices), reply.usage.prompt_tokens, reply.usage.completion_tokens


prompts = ["a", "b c d e f g", "h i"]
alone = [counted(client.completions.create(model="model", prompt=prompt, temperature=0)) for prompt in prompts]
together = counted(client.completions.create(model="model", prompt=prompts, temperature=0))
four = counted(client.chat.completions.create(model="model", messages=[{"role": "user", "content": "Hello"}], n=4, temperature=0))
total = tuple(map(sum, zip(*alone)))
print("version:   openai", importlib.metadata.version("openai") + ", xllamacpp", importlib.metadata.version("xllamacpp"), "(llama.cpp's server inside)")
print("expected:  the usage of a reply is of all its choices")
print("behaviour: it is of the first alone")
print(f"seen:      (choices, prompt's tokens, answer's) of three prompts one by one {alone}, together {together}; of n=4 {four}")
sys.exit(not (together == (3, *alone[0][1:]) != total and four[0] == 4 and four[2] == alone[0][2]))
PYTHON
