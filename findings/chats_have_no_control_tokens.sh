#!/bin/sh
# create_chat_completion of llama-cpp-py-sync writes a conversation by the model's template and makes tokens of it. <|im_start|> and its like should
# become the control tokens that the model was trained with, as in llama.cpp's own programs. It asks llama_tokenize without parse_special, by
# its own default, so each becomes the tokens of its letters: the model reads a conversation that isn't marked as one, and answers it worse,
# without an error. generate() does so with a prompt in which the caller has written them himself.
# Source: llama-cpp-py-sync 0.11739 llama_cpp_py_sync/llama.py, Llama.create_chat_completion, Llama.tokenize (parse_special=False);
# llama.cpp 0c1e570 include/llama.h, llama_tokenize (parse_special).
# The package's Python, without its C library: what it asks of the library is written down below.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet 'llama-cpp-py-sync==0.11739'
"$folder/env/bin/python" - <<'PYTHON'
import importlib.metadata
import sys

import cffi
from llama_cpp_py_sync.llama import Llama

asked = []


class Library:
    """llama.cpp's C interface, as far as a conversation is made tokens of it."""

    def llama_model_chat_template(self, model, name):
        return b"chatml"

    def llama_chat_apply_template(self, template, messages, n, add_assistant, output, size):
        prompt = b"<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
        output[0 : len(prompt)] = prompt
        return len(prompt)

    def llama_tokenize(self, vocab, text, length, tokens, n, add_special, parse_special):
        asked.append({"text": text, "add_special": add_special, "parse_special": parse_special})
        raise InterruptedError("seen")


ffi = cffi.FFI()
ffi.cdef("typedef int llama_token; typedef struct { const char *role; const char *content; } llama_chat_message;")
llama = Llama.__new__(Llama)
llama._lib, llama._ffi, llama._model, llama._vocab, llama._n_ctx = Library(), ffi, None, None, 4096
llama._set_abort_callback = llama._clear_context_state = lambda *_: None
try:
    llama.create_chat_completion([{"role": "user", "content": "Hello"}])
except InterruptedError:
    pass
[seen] = asked
print("version:   llama-cpp-py-sync", importlib.metadata.version("llama-cpp-py-sync"))
print("expected:  control tokens that the chat template writes are parsed as such")
print("behaviour: they are not, and become text")
print(f"seen:      llama_tokenize is asked with {seen}")
sys.exit(not seen["text"].startswith(b"<|im_start|>") or seen["parse_special"] is not False)
PYTHON
