#!/bin/sh
# llama-cpp-python embeds texts of up to n_ctx tokens, one would think: with n_ctx=8192 a chapter. It cuts each at n_batch, 512 by default, however
# large the context is, and returns the vector of what is left, without a word; create_embedding and the server have no switch for it and count, in
# usage, the 512. Two documents that share their first page so have one vector, and the end token, from which some models pool, is cut off, too. A larger
# n_batch is what embeds longer texts.
# Source: llama-cpp-python 0.3.36 llama_cpp/llama.py, Llama.embed (tokens[:n_batch]), Llama.create_embedding.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet 'numpy==2.4.6' 'diskcache==5.6.3' 'jinja2==3.1.6' 'typing_extensions==4.16.0'
"$folder/env/bin/pip" download --quiet --no-deps --no-binary :all: --dest "$folder" 'llama-cpp-python==0.3.36'
"$folder/env/bin/python" - "$folder" <<'PYTHON'
import sys
import tarfile
import types
from unittest import mock

folder = sys.argv[1]
sdist = "llama_cpp_python-0.3.36"
with tarfile.open(f"{folder}/{sdist}.tar.gz") as archive:
    members = [member for member in archive.getmembers() if member.name.startswith(f"{sdist}/llama_cpp/") and member.name.endswith(".py")]
    archive.extractall(folder, members)
# The package's Python, without its C library: its model is the mean of token ids below.
package = types.ModuleType("llama_cpp")
package.__path__ = [f"{folder}/{sdist}/llama_cpp"]
sys.modules["llama_cpp"] = package
for name in ("llama_cpp", "_internals", "_logger"):
    sys.modules[f"llama_cpp.{name}"] = mock.MagicMock()
sys.modules["llama_cpp.llama_cpp"].LLAMA_POOLING_TYPE_NONE = 0
from llama_cpp.llama import Llama


class Batch:
    """llama_batch: the tokens of each sequence."""

    def __init__(self):
        self.sequences = []

    def reset(self):
        self.sequences = []

    def add_sequence(self, tokens, sequence, logits_all):
        self.sequences.append(tokens)


class Mean(Llama):
    """A model whose embedding of a text is the mean of its bytes."""

    def __init__(self, n_ctx, n_batch):
        self.verbose, self.model_path, self._n_ctx, self.n_batch, self._batch = False, "mean", n_ctx, n_batch, Batch()
        self.context_params, self._ctx = mock.MagicMock(n_seq_max=1, embeddings=True, n_ctx=n_ctx), mock.MagicMock()
        self._ctx.decode = lambda batch: setattr(self, "decoded", list(batch.sequences))
        sys.modules["llama_cpp.llama_cpp"].llama_get_embeddings_seq = lambda _context, number: [sum(self.decoded[number]) / len(self.decoded[number])]

    __del__ = close = reset = lambda self: None
    n_embd = lambda self: 1
    pooling_type = lambda self: 1
    tokenize = lambda self, text: list(text)


first_page, rest = "a" * 512, "z" * 3000


def embedded(text, **sizes):
    answer = Mean(**sizes).create_embedding(text)
    return round(answer["data"][0]["embedding"][0], 1), answer["usage"]["prompt_tokens"]


short, long, whole = embedded(first_page, n_ctx=8192, n_batch=512), embedded(first_page + rest, n_ctx=8192, n_batch=512), embedded(first_page + rest, n_ctx=8192, n_batch=8192)
print("version:   llama-cpp-python 0.3.36")
print("expected:  3,512 tokens of a context of 8,192 are embedded, or refused")
print("behaviour: the first n_batch of them are embedded")
print(f"seen:      (mean, tokens counted) of 512 tokens {short}, of those and 3,000 others {long}, with n_batch=8192 {whole}")
sys.exit(not (short == long == (97.0, 512) and whole == (118.7, 3512)))
PYTHON
