#!/bin/sh
# lm-eval's model `gguf` evaluates what a server of llama-cpp-python serves. A task that lets the model write (gsm8k, say) gives each question
# its max_gen_toks and temperature, and one would think that they are sent. Of a question's settings `gguf` sends `until` alone; the server takes
# OpenAI's old default for what isn't named, 16 tokens, and answers that need more words are cut before they come to their result.
# The score is a bad one, and no error says why.
# Source: lm-eval 0.4.13 lm_eval/models/gguf.py, GGUFLM.generate_until, gguf_completion; llama-cpp-python 0.3.36 llama_cpp/server/types.py,
# CreateCompletionRequest.max_tokens.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet 'numpy==2.4.6' 'requests==2.34.2' 'tqdm==4.70.1' 'jinja2==3.1.6' 'pyyaml==6.0.4'
"$folder/env/bin/pip" install --quiet 'pydantic==2.14.4' 'typing_extensions==4.16.0'
"$folder/env/bin/pip" download --quiet --no-deps --no-binary :all: --dest "$folder" 'llama-cpp-python==0.3.36'
"$folder/env/bin/pip" download --quiet --no-deps --dest "$folder" 'lm-eval==0.4.13'  # its model for GGUF needs few of its dependencies
PYTHONPATH=$(echo "$folder"/lm_eval-*.whl) "$folder/env/bin/python" - "$folder" <<'PYTHON'
import http.server
import json
import sys
import tarfile
import threading
from unittest import mock

from lm_eval.api.instance import Instance
from lm_eval.models.gguf import GGUFLM

# The request that the server's own code takes: the package's file, without its C library.
sys.modules["llama_cpp"] = mock.MagicMock()
types = {"__name__": "types"}
with tarfile.open(sys.argv[1] + "/llama_cpp_python-0.3.36.tar.gz") as archive:
    source = archive.extractfile("llama_cpp_python-0.3.36/llama_cpp/server/types.py").read()
exec(source.split(b"class CreateEmbeddingRequest")[0], types)
CreateCompletionRequest = types["CreateCompletionRequest"]
CreateCompletionRequest.model_rebuild(_types_namespace=types)
bodies = []


class Server(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        answer = json.dumps({"choices": [{"text": "18", "index": 0, "finish_reason": "length"}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


server = http.server.HTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
settings = {"until": ["Q:"], "max_gen_toks": 256, "temperature": 0.7, "do_sample": True}
question = Instance(request_type="generate_until", doc={}, arguments=("Q: Sixteen eggs a day, three eaten ...\nA:", settings), idx=0)
GGUFLM(base_url=f"http://127.0.0.1:{server.server_port}").generate_until([question], disable_tqdm=True)
body = bodies[0]
taken = CreateCompletionRequest(**body)
print("version:   lm-eval 0.4.13, llama-cpp-python 0.3.36")
print("expected:  256 tokens at most, temperature 0.7, as the task says")
print("behaviour: of the task's settings only `until` is sent, and the server's default is 16 tokens")
print(f"seen:      sent {sorted(body)}, temperature {body['temperature']}; the server takes max_tokens {taken.max_tokens}")
sys.exit(not (sorted(body) == ["logprobs", "prompt", "stop", "temperature"] and body["temperature"] == 0 and taken.max_tokens == 16))
PYTHON
