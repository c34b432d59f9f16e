#!/bin/sh
# OpenAILike is LlamaIndex's way to a server of one's own. Its chat() with a list of messages should ask /v1/chat/completions, where the server
# writes them by the model's template. By default it writes "user: ...", "assistant: " itself and asks /v1/completions: an instruct model
# gets a conversation in none of the forms that it was trained on, and what it answers is worse, without an error. And it takes 3,900 tokens
# for the context, whatever the server has, and packs what it retrieves by that. is_chat_model=True and context_window say otherwise.
# Source: llama-index-llms-openai-like 0.8.1 llama_index/llms/openai_like/base.py, OpenAILike.is_chat_model, OpenAILike.chat; llama-index-core
# 0.14.25 llama_index/core/constants.py, DEFAULT_CONTEXT_WINDOW.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --no-compile 'llama-index-llms-openai-like==0.8.1' 'llama-index-core==0.14.25'
"$folder/env/bin/python" - <<'PYTHON'
import http.server
import importlib.metadata
import json
import sys
import threading

from llama_index.core.llms import ChatMessage
from llama_index.llms.openai_like import OpenAILike

asked = []


class Server(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        asked.append((self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
        choice = {"index": 0, "finish_reason": "stop", "text": "", "message": {"role": "assistant", "content": ""}}
        body = json.dumps({"id": "1", "object": "", "created": 1, "model": "m", "choices": [choice]}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
address = {"model": "m", "api_base": f"http://127.0.0.1:{server.server_port}/v1", "api_key": "none"}
plain, told = OpenAILike(**address), OpenAILike(**address, is_chat_model=True)
for llm in (plain, told):
    llm.chat([ChatMessage(role="system", content="Be brief."), ChatMessage(role="user", content="Hello")])
seen = asked[0][0], asked[0][1]["prompt"], asked[1][0], plain.metadata.context_window
print("version:   llama-index-llms-openai-like", importlib.metadata.version("llama-index-llms-openai-like"))
print("expected:  chat() asks /v1/chat/completions")
print("behaviour: it asks /v1/completions with a text of its own, unless it is told is_chat_model")
print(f"seen:      {seen[0]} with {seen[1]!r}; told so, {seen[2]}; a context of {seen[3]} tokens")
sys.exit(seen != ("/v1/completions", "system: Be brief.\nuser: Hello\nassistant: ", "/v1/chat/completions", 3900))
PYTHON
