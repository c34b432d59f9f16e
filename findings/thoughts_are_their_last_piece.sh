#!/bin/sh
# A model that thinks streams its thoughts beside its answer, as reasoning_content from llama.cpp's server, vLLM and DeepSeek. chat.completions.stream of
# OpenAI's client for JavaScript puts an answer together of its pieces; of fields that OpenAI doesn't have one would expect the same, or nothing. Each
# piece takes the place of the one before: the finished message has the thoughts' last token for thoughts. Put back into the conversation, as
# templates of thinking models want it between calls of tools, that is what the model reads of them. The client for Python joins them.
# Source: openai (npm) 6.49.0 src/lib/ChatCompletionStream.ts, #accumulateChatCompletion (Object.assign(choice.message, rest)).
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet 'openai==3.57.0'
npm install --silent --no-audit --no-fund --prefix "$folder" 'openai@6.49.0'
"$folder/env/bin/python" - "$folder" <<'PYTHON'
import http.server
import importlib.metadata
import json
import subprocess
import sys
import threading

import openai

folder = sys.argv[1]
PIECES = [{"role": "assistant", "reasoning_content": "Let me"}, {"reasoning_content": " see."}, {"content": "Yes,"}, {"content": " sir."}]
SCRIPT = """
import OpenAI from "openai";
const client = new OpenAI({baseURL: process.argv[2], apiKey: "none", maxRetries: 0});
const stream = client.chat.completions.stream({model: "model", messages: [{role: "user", content: "Is it?"}]});
console.log(JSON.stringify((await stream.finalChatCompletion()).choices[0].message));
"""
with open(f"{folder}/ask.mjs", "w") as file:
    file.write(SCRIPT)


class Server(http.server.BaseHTTPRequestHandler):
    """Streams the pieces of an answer that was thought about, as llama-server does."""

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for delta, reason in [(piece, None) for piece in PIECES] + [({}, "stop")]:
            choices = [{"index": 0, "delta": delta, "finish_reason": reason}]
            chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "model", "choices": choices}
            self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
        self.wfile.write(b"data: [DONE]\n\n")

    def log_message(self, *_):
        pass


server = http.server.HTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
address = f"http://127.0.0.1:{server.server_port}/v1"
found = json.loads(subprocess.run(["node", f"{folder}/ask.mjs", address], capture_output=True, text=True, check=True).stdout)
with openai.OpenAI(base_url=address, api_key="none").chat.completions.stream(model="model", messages=[{"role": "user", "content": "Is it?"}]) as stream:
    python = stream.get_final_completion().choices[0].message
seen = [(found["reasoning_content"], found["content"]), (python.reasoning_content, python.content)]
print("version:   openai (npm) 6.49.0, openai (PyPI)", importlib.metadata.version("openai"))
print("expected:  streamed thoughts are put together as the answer is")
print("behaviour: in JavaScript the last piece is left of them")
print(f"seen:      (thoughts, answer) in JavaScript {seen[0]}, in Python {seen[1]}")
sys.exit(seen != [(" see.", "Yes, sir."), ("Let me see.", "Yes, sir.")])
PYTHON
