#!/bin/sh
# Instructor gets Pydantic models out of language models, in its mode JSON_SCHEMA by telling the server the schema; of llama-cpp-python it patches
# create_chat_completion, which is made like OpenAI's. Instructor sends OpenAI's form, {"type": "json_schema", "json_schema": {"schema": ...}}.
# llama-cpp-python knows a form of its own, {"type": "json_object", "schema": ...}, and takes any other type for no wish at all: no grammar
# and no error. The schema isn't in the prompt in this mode either, so the model has never seen a field's name, and is asked again and again. (Its server
# answers the same request with an error.)
# Source: llama-cpp-python 0.3.36 llama_cpp/llama_chat_format.py, _grammar_for_response_format (!= "json_object"); instructor 1.17.0
# instructor/v2/providers/openai/handlers.py ("type": "json_schema").
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet 'numpy==2.4.6' 'diskcache==5.6.3' 'jinja2==3.1.6' 'typing_extensions==4.16.0' 'instructor==1.17.0'
"$folder/env/bin/pip" download --quiet --no-deps --no-binary :all: --dest "$folder" 'llama-cpp-python==0.3.36'
"$folder/env/bin/python" - "$folder" <<'PYTHON'
import importlib.metadata
import sys
import tarfile
import types
from unittest import mock

import instructor
import pydantic

folder = sys.argv[1]
sdist = "llama_cpp_python-0.3.36"
with tarfile.open(f"{folder}/{sdist}.tar.gz") as archive:
    members = [member for member in archive.getmembers() if member.name.startswith(f"{sdist}/llama_cpp/") and member.name.endswith(".py")]
    archive.extractall(folder, members)
# The package's Python, without its C library: what is asked of a model is written down below.
package = types.ModuleType("llama_cpp")
package.__path__ = [f"{folder}/{sdist}/llama_cpp"]
sys.modules["llama_cpp"] = package
for name in ("llama_cpp", "_internals", "_logger"):
    sys.modules[f"llama_cpp.{name}"] = mock.MagicMock()
from llama_cpp import llama_chat_format

chat = llama_chat_format.Jinja2ChatFormatter("{% for m in messages %}{{ m.content }}{% endfor %}", eos_token="</s>", bos_token="<s>").to_chat_handler()


class City(pydantic.BaseModel):
    mayor: str


class Asked(BaseException):
    """What the model would be asked."""


def ask(**fields):
    """Llama.create_chat_completion, as far as the model."""
    model = mock.MagicMock()
    model.tokenize = lambda text, **_: list(text)
    model.create_completion.side_effect = lambda **asked: (_ for _ in ()).throw(Asked(bytes(asked["prompt"]).decode(), asked["grammar"]))
    try:
        chat(llama=model, **fields)
    except Asked as asked:
        return asked.args


def by_instructor(**fields):
    raise Asked(fields["response_format"]["type"], *ask(**fields))


messages = [{"role": "user", "content": "Oslo?"}]
prompt, own = ask(messages=messages, response_format={"type": "json_object", "schema": City.model_json_schema()})
try:
    instructor.patch(create=by_instructor, mode=instructor.Mode.JSON_SCHEMA)(messages=messages, response_model=City)
except Asked as asked:
    form, prompt, grammar = asked.args
print("version:   instructor", importlib.metadata.version("instructor") + ", llama-cpp-python 0.3.36")
print("expected:  in mode JSON_SCHEMA the model is kept to the schema")
print("behaviour: the schema is neither in the grammar nor in the prompt")
print(f"seen:      by type {form!r} the prompt {prompt!r} and the grammar {grammar}; by 'json_object' a grammar with the field: {'mayor' in own._grammar}")
sys.exit(not (form == "json_schema" and prompt == "Oslo?" and grammar is None and "mayor" in own._grammar))
PYTHON
