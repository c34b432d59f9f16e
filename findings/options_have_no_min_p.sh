#!/bin/sh
# ollama's Python client has a class of a model's options, ollama.Options, with its fields typed, and takes a dictionary as well. One would take the
# class, which should know what the server does and refuse what it doesn't. It has no `min_p`, which the server has, and drops what it has
# not, a slip of the pen too, without a word: whoever wants min_p beside a high temperature samples by the temperature alone. A dictionary
# is sent as it is.
# Source: ollama 0.6.3 ollama/_types.py, Options; Ollama api/types.go, Options.MinP.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet 'ollama==0.6.3'
"$folder/env/bin/python" - <<'PYTHON'
import http.server
import importlib.metadata
import json
import sys
import threading

import ollama

sent = []


class Server(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        sent.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        body = b'{"model": "m", "message": {"role": "assistant", "content": ""}, "done": true}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
client = ollama.Client(host=f"http://127.0.0.1:{server.server_port}")
wanted = {"temperature": 1.5, "min_p": 0.1}
for options in (wanted, ollama.Options(**wanted), ollama.Options(temprature=1.5)):
    client.chat(model="m", messages=[{"role": "user", "content": "Hello"}], options=options)
seen = [request["options"] for request in sent]
print("version:   ollama", importlib.metadata.version("ollama"))
print("expected:  Options has the server's options, or refuses what it does not know")
print("behaviour: it drops min_p, and what is misspelt")
print(f"seen:      as a dictionary {seen[0]}, as Options {seen[1]}; of Options(temprature=1.5) {seen[2]}")
sys.exit(seen != [wanted, {"temperature": 1.5}, {}])
PYTHON
