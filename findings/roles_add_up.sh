#!/bin/sh
# Ollama names the role in each chunk of a streamed answer, which says nothing new; a client should take the first or the last.
# chat.completions.stream of OpenAI's client puts what strings a delta has one behind the other: the message that it ends with is of the role
# "assistantassistantassistant", and where a call's id and name are repeated, it is one of "ff" with the id "c1c1". Such a message can't be
# put back into the conversation, as is done before a tool's result.
# Source: openai 3.57.0 src/openai/lib/streaming/_deltas.py, accumulate_delta; Ollama openai/openai.go, toChunk (Role: "assistant").
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet 'openai==3.57.0'
"$folder/env/bin/python" - <<'PYTHON'
import http.server
import importlib.metadata
import json
import sys
import threading

import openai

CALL = {"index": 0, "id": "c1", "type": "function", "function": {"name": "f"}}
DELTAS = [
    {"role": "assistant", "content": "Hel"}, {"role": "assistant", "content": "lo"},
    {"role": "assistant", "tool_calls": [CALL | {"function": {"name": "f", "arguments": "{"}}]},
    {"tool_calls": [CALL | {"function": {"name": "f", "arguments": "}"}}]},
]


class Server(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for i, delta in enumerate(DELTAS):
            choice = {"index": 0, "delta": delta, "finish_reason": "tool_calls" if i == len(DELTAS) - 1 else None}
            chunk = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
            self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
        self.wfile.write(b"data: [DONE]\n\n")

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
client = openai.OpenAI(base_url=f"http://127.0.0.1:{server.server_port}/v1", api_key="none")
with client.chat.completions.stream(model="m", messages=[{"role": "user", "content": "Hello"}]) as stream:
    message = stream.get_final_completion().choices[0].message
[call] = message.tool_calls
seen = message.role, message.content, call.id, call.function.name, call.function.arguments
print("version:   openai", importlib.metadata.version("openai"))
print("expected:  what a server repeats in each chunk is there once in the message")
print("behaviour: it is there as often as it was sent")
print(f"seen:      role, content, a call's id, name and arguments: {seen}")
sys.exit(seen != ("assistant" * 3, "Hello", "c1c1", "ff", "{}"))
PYTHON
