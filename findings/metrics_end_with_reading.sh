#!/bin/sh
# Reading a metric should change nothing: Prometheus' gauges are what is so now, and who looks with curl, or runs a second Prometheus, sees what the
# first one does. llama.cpp's two gauges of speed, prompt_tokens_seconds and predicted_tokens_seconds, are averages since the last reading, and each GET
# /metrics begins them anew: the second reading says 0 tokens per second. Whoever looks by hand so writes a 0 into somebody else's diagram. The
# counters beside them hold: rate(tokens_predicted_total) / rate(tokens_predicted_seconds_total) is the speed.
# Source: llama.cpp 0c1e570 tools/server/server-context.cpp, get_metrics (task.metrics_reset_bucket = true); tools/server/server-common.h,
# server_metrics::reset_bucket.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet 'xllamacpp==2026.10.11549' 'gguf==0.19.0' 'prometheus_client==0.26.0'
"$folder/env/bin/python" - "$folder" <<'PYTHON'
import importlib.metadata
import json
import sys
import urllib.request

import gguf
import numpy
import xllamacpp
from prometheus_client.parser import text_string_to_metric_families

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
params.endpoint_metrics = True
server = xllamacpp.Server(params)  # llama-server's own code, in this process


def get(path, body=None):
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(server.listening_address + path, data, {"Content-Type": "application/json"})) as answer:
        return answer.read().decode()


def scrape():
    """The two gauges of speed, and the counter of tokens beside them."""
    found = {family.name: family.samples[0].value for family in text_string_to_metric_families(get("/metrics"))}
    return found["llamacpp:prompt_tokens_seconds"], found["llamacpp:predicted_tokens_seconds"], found["llamacpp:tokens_predicted"]


get("/completion", {"prompt": "a b c", "n_predict": 16})
first, second = scrape(), scrape()
print("version:   xllamacpp", importlib.metadata.version("xllamacpp"), "(llama.cpp's server inside), prometheus_client", importlib.metadata.version("prometheus_client"))
print("expected:  two readings with nothing between them are the same")
print("behaviour: the first one sets the gauges of speed to 0")
print(f"seen:      tokens per second of the prompt {first[0]:.0f}, then {second[0]:.0f}; of the answer {first[1]:.0f}, then {second[1]:.0f}; counted {first[2]:.0f}, then {second[2]:.0f}")
sys.exit(not (min(first) > 0 and second == (0, 0, first[2])))
PYTHON
