#!/bin/sh
# OpenAI's frequency_penalty is subtracted per occurrence: 0 is none, 0.5 some. Ollama has an option of that name and meaning, and LiteLLM's
# `ollama/` passes it on. Its other route to the same server, `ollama_chat/`, which it recommends for chats, sends the number as
# repeat_penalty, of which 1 is none and what is less rewards repetition: 0.5 doubles each positive logit of what was said already. And 0, which
# clients send for no penalty, becomes a number that has to be greater.
# Source: litellm 1.110.2 litellm/llms/ollama/chat/transformation.py, OllamaChatConfig.map_openai_params; llama.cpp 0c1e570
# src/llama-sampler.cpp, llama_sampler_penalties_apply (logit /= penalty_repeat); include/llama.h
# (penalty_repeat must be > 0).
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet 'litellm==1.110.2' 'xllamacpp==2026.10.11549'
LITELLM_LOCAL_MODEL_COST_MAP=True "$folder/env/bin/python" - <<'PYTHON'
import ctypes
import http.server
import importlib.metadata
import json
import sys
import threading

import litellm
import xllamacpp

options = []


class Server(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        options.extend([request["options"]] if "options" in request else [])  # LiteLLM asks what the model can, too
        answer = {"model": "m", "message": {"role": "assistant", "content": "yes"}, "response": "yes", "done": True, "done_reason": "stop"}
        body = json.dumps(answer | {"prompt_eval_count": 1, "eval_count": 1}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()


def sent(route, penalty):
    url = f"http://127.0.0.1:{server.server_port}"
    litellm.completion(f"{route}/m", [{"role": "user", "content": "Hello"}], api_base=url, frequency_penalty=penalty)
    return options[-1]


class Candidate(ctypes.Structure):
    _fields_ = [("token", ctypes.c_int32), ("logit", ctypes.c_float), ("p", ctypes.c_float)]


class Candidates(ctypes.Structure):
    _fields_ = [("data", ctypes.POINTER(Candidate)), ("size", ctypes.c_size_t), ("selected", ctypes.c_int64), ("sorted", ctypes.c_bool)]


# xllamacpp's module exports llama.cpp's C interface.
llama = ctypes.CDLL(xllamacpp.xllamacpp.__file__)
llama.llama_sampler_init_penalties.restype = ctypes.c_void_p
llama.llama_sampler_init_penalties.argtypes = [ctypes.c_int32, ctypes.c_int32, ctypes.c_float, ctypes.c_float, ctypes.c_float]
llama.llama_sampler_accept.argtypes = [ctypes.c_void_p, ctypes.c_int32]
llama.llama_sampler_apply.argtypes = [ctypes.c_void_p, ctypes.POINTER(Candidates)]


def penalised(repeat=1.0, frequency=0.0):
    """By llama.cpp, the logit of a token that was said once, which was 3."""
    candidates = (Candidate * 2)(Candidate(0, 3.0), Candidate(1, 3.5))
    sampler = llama.llama_sampler_init_penalties(2, 64, repeat, frequency, 0.0)
    llama.llama_sampler_accept(sampler, 0)
    llama.llama_sampler_apply(sampler, Candidates(candidates, 2, -1, False))
    return candidates[0].logit


seen = {route: [sent(route, 0.5), sent(route, 0.0)] for route in ("ollama", "ollama_chat")}
logits = [penalised(frequency=0.5), penalised(repeat=0.5)]
print("version:   litellm", importlib.metadata.version("litellm"), "xllamacpp", importlib.metadata.version("xllamacpp"))
print("expected:  frequency_penalty is frequency_penalty on both routes")
print("behaviour: for chats it becomes repeat_penalty, which rewards what was said already when below 1")
print(f"seen:      options sent for 0.5 and 0: {seen}; a logit of 3 becomes {logits[0]} by the one, {logits[1]} by the other")
right = {"ollama": [{"frequency_penalty": 0.5}, {"frequency_penalty": 0.0}], "ollama_chat": [{"repeat_penalty": 0.5}, {"repeat_penalty": 0.0}]}
sys.exit(not (seen == right and logits == [2.5, 6.0]))
PYTHON
