#!/bin/sh
# A tool that is given to ollama's Python client as a JSON schema should reach the server as it was given. The client copies it into a model of its
# own that knows four keywords of a property, type, items, description and enum: the properties of a nested object are gone, and of anyOf, as
# Pydantic writes each optional argument, not even a type is left. In an array's items the same object is sent whole. A Python function as
# a tool has its signature, and even there the choices of a Literal are gone, a model is a "string", and what has a default is
# required. The server says nothing, since all of it is allowed; the model guesses.
# Source: ollama 0.6.3 ollama/_types.py, Tool.Function.Parameters.Property; ollama/_utils.py, convert_function_to_tool.
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
from typing import Literal

import ollama
import pydantic

tools = []


class Server(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        tools.extend(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["tools"])
        body = json.dumps({"model": "m", "message": {"role": "assistant", "content": "yes"}, "done": True}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = http.server.HTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
client = ollama.Client(f"http://127.0.0.1:{server.server_port}")


def sent(tool):
    client.chat("m", [{"role": "user", "content": "Book it"}], tools=[tool])
    return tools[-1]["function"]["parameters"]


class Place(pydantic.BaseModel):
    city: str


def book(where: Place, seat: Literal["aisle", "window"], nights: int = 1):
    """Book a journey."""


place = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
given = {"where": place, "stops": {"type": "array", "items": place}, "until": {"anyOf": [{"type": "string"}, {"type": "null"}]}}
schema = {"type": "function", "function": {"name": "book", "parameters": {"type": "object", "properties": given, "required": ["where"]}}}
properties = sent(schema)["properties"]
function = sent(book)
kept = {name: {key: value for key, value in found.items() if value} for name, found in function["properties"].items()}
print("version:   ollama", importlib.metadata.version("ollama"))
print("expected:  the schema as it was given; of the function, a place with a city, two seats, nights if wanted")
print("behaviour: insides of objects, anyOf and a Literal's choices are gone; what has a default is required")
print(f"seen:      schema: {properties}; function: {kept}, required {function['required']}")
right = properties == {"where": {"type": "object"}, "stops": given["stops"], "until": {}}
types = {"where": {"type": "string"}, "seat": {"type": "string"}, "nights": {"type": "integer"}}
sys.exit(not (right and kept == types and function["required"] == ["where", "seat", "nights"]))
PYTHON
