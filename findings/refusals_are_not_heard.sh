#!/bin/sh
# A request to /v1/messages may say what it doesn't want: tool_choice {"type": "none"}, with tools that are only there for what was called before, and
# thinking {"type": "disabled"}. Anthropic's own server keeps to both. llama.cpp's, which has this endpoint for clients like Claude Code, reads of
# tool_choice "auto", "any" and "tool", and of thinking "enabled": each refusal is the same as nothing said, which is "auto", and thinking if the template
# thinks by default. The tool is called, and the answer begins with thoughts. /v1/chat/completions knows "none", and chat_template_kwargs
# stop the thinking in both.
# Source: llama.cpp 0c1e570 tools/server/server-chat.cpp, server_chat_convert_anthropic_to_oai (tool_choice, thinking).
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet 'xllamacpp==2026.10.11549' 'gguf==0.19.0' 'openai==3.57.0' 'anthropic==2.14.0'
"$folder/env/bin/python" - "$folder" <<'PYTHON'
import importlib.metadata
import sys

import anthropic
import gguf
import numpy
import openai
import xllamacpp

CALL = '<tool_call>\n{"name": "pay", "arguments": {}}\n</tool_call>'
TEMPLATE = """{% for m in messages %}{% for call in m.tool_calls %}<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>{% endfor %}{{ m.content }}
{% endfor %}{% if tools %}{{ tools | tojson }}{% elif enable_thinking %}<think>{% endif %}"""
tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", CALL]


def write_model(path):
    """A valid llama of one layer that calls a tool, in one token, and ends."""
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
    writer.add_chat_template(TEMPLATE)
    embedding, output = numpy.zeros((2, len(tokens), 32))
    embedding[:-1, 0] = output[-1, 0] = 1  # behind any other token comes CALL,
    embedding[-1, 1] = output[2, 1] = 1  # and behind CALL the end
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

schema = {"type": "object", "properties": {}}
messages = [{"role": "user", "content": "Hello"}]
of_openai = openai.OpenAI(base_url=server.listening_address + "/v1", api_key="none", max_retries=0).chat.completions
of_anthropic = anthropic.Anthropic(base_url=server.listening_address, api_key="none", max_retries=0).messages
tools_openai = [{"type": "function", "function": {"name": "pay", "description": "", "parameters": schema}}]
tools_anthropic = [{"name": "pay", "description": "", "input_schema": schema}]
chat = of_openai.create(model="model", messages=messages, tools=tools_openai, tool_choice="none", max_tokens=9)
message = of_anthropic.create(model="model", messages=messages, tools=tools_anthropic, tool_choice={"type": "none"}, max_tokens=9)


def prompt_tokens(**fields):
    """Of a template that says <think> unless it is told otherwise, in seven tokens."""
    return of_anthropic.count_tokens(model="model", messages=messages, **fields).input_tokens


nothing, disabled, by_kwargs = prompt_tokens(), prompt_tokens(thinking={"type": "disabled"}), prompt_tokens(extra_body={"chat_template_kwargs": {"enable_thinking": False}})
versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("openai", "anthropic", "xllamacpp"))
print("version:  ", versions, "(llama.cpp's server inside)")
print('expected:  no call with tool_choice "none", no thinking with thinking "disabled"')
print("behaviour: both are passed over by /v1/messages")
print(f"seen:      finish_reason {chat.choices[0].finish_reason!r} of /v1/chat/completions, stop_reason {message.stop_reason!r} of /v1/messages; prompts of", end=" ")
print(f"{nothing} tokens with nothing said, {disabled} with thinking disabled, {by_kwargs} by chat_template_kwargs")
sys.exit(not (chat.choices[0].finish_reason == "stop" and message.stop_reason == "tool_use" and nothing == disabled > by_kwargs))
PYTHON
