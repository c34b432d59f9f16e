#!/bin/sh
# lm-eval's `openai-chat-completions` takes a base_url, and so evaluates local models, too. Greedily, as everywhere in lm-eval: temperature 0, and
# the task's stop strings are sent. So it is for Qwen3-8B. Qwen2.5-7B is sampled at temperature 1 and never told to stop: for the sake of GPT-5,
# whose names have a 5, all names that have one lose their stop strings and the temperature, the task's own too.
# Two runs then differ, and two models of one family are compared under different rules.
# Source: lm-eval 0.4.13 lm_eval/models/openai_completions.py, OpenAIChatCompletion._create_payload ("5" in self.model).
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet 'numpy==2.4.6' 'requests==2.34.2' 'tqdm==4.70.1' 'jinja2==3.1.6' 'pyyaml==6.0.4'
"$folder/env/bin/pip" install --quiet 'aiohttp==3.14.5' 'tenacity==9.1.2' 'typing_extensions==4.16.0'
"$folder/env/bin/pip" download --quiet --no-deps --dest "$folder" 'lm-eval==0.4.13'  # its client needs few of its dependencies
PYTHONPATH=$(echo "$folder"/lm_eval-*.whl) OPENAI_API_KEY=none TQDM_DISABLE=1 "$folder/env/bin/python" - <<'PYTHON'
import http.server
import json
import sys
import threading

from lm_eval.api.instance import Instance
from lm_eval.models.api_models import JsonChatStr
from lm_eval.models.openai_completions import OpenAIChatCompletion

bodies = []


class Server(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        answer = json.dumps({"choices": [{"index": 0, "message": {"role": "assistant", "content": "18"}}]}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


server = http.server.HTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()


def sent(model):
    """Temperature and stop strings of a question, of a task with temperature 0 that stops at the next question."""
    client = OpenAIChatCompletion(base_url=f"http://127.0.0.1:{server.server_port}/v1/chat/completions", model=model, eos_string="</s>")
    chat = JsonChatStr(json.dumps([{"role": "user", "content": "Sixteen eggs a day, three eaten ..."}]))
    client.generate_until([Instance("generate_until", {}, (chat, {"until": ["Q:"], "temperature": 0.0}), 0)], disable_tqdm=True)
    return bodies[-1]["temperature"], bodies[-1].get("stop")


seen = {model: sent(model) for model in ("Qwen3-8B", "Qwen2.5-7B-Instruct")}
print("version:   lm-eval 0.4.13")
print("expected:  temperature 0 and the task's stop strings for each model")
print("behaviour: temperature 1 and no stop strings for those with a 5 in their names")
print("seen:     ", seen)
sys.exit(seen != {"Qwen3-8B": (0.0, ["Q:", "</s>"]), "Qwen2.5-7B-Instruct": (1, None)})
PYTHON
