#!/bin/sh
# With pooling_type NONE llama-cpp-python's embed() gives a vector for each token, and a list of texts should give what its texts give one by one.
# It does for the first text of a batch. Behind it the place in the array of all vectors is counted up by tokens, where it is counted in
# numbers: the second text's vectors begin in the middle of the first text's, and each consists of one's end and another's beginning. Shapes and lengths
# are right, and so is each text alone: ColBERT-like rankings and clusterings are just worse than they should be.
# Source: llama-cpp-python 0.3.36 llama_cpp/llama.py, Llama.embed, decode_batch (pos += size).
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
# The package's Python, without its C library: its model is the table below.
package = types.ModuleType("llama_cpp")
package.__path__ = [f"{folder}/{sdist}/llama_cpp"]
sys.modules["llama_cpp"] = package
for name in ("llama_cpp", "_internals", "_logger"):
    sys.modules[f"llama_cpp.{name}"] = mock.MagicMock()
sys.modules["llama_cpp.llama_cpp"].LLAMA_POOLING_TYPE_NONE = 0
from llama_cpp.llama import Llama

N_EMBD = 4


class Batch:
    """llama_batch: the tokens of all sequences."""

    def __init__(self):
        self.tokens = []

    def reset(self):
        self.tokens = []

    def add_sequence(self, tokens, sequence, logits_all):
        self.tokens += tokens


class Table(Llama):
    """A model whose embedding of a token is its number, N_EMBD times."""

    def __init__(self):
        self.verbose, self.n_batch, self._batch = False, 512, Batch()
        self.context_params, self._ctx = mock.MagicMock(n_seq_max=64, embeddings=True), mock.MagicMock()
        self._ctx.decode = lambda batch: setattr(self, "decoded", list(batch.tokens))
        sys.modules["llama_cpp.llama_cpp"].llama_get_embeddings = lambda _context: [float(token) for token in self.decoded for _ in range(N_EMBD)]

    __del__ = close = reset = lambda self: None
    n_embd = lambda self: N_EMBD
    pooling_type = lambda self: 0
    tokenize = lambda self, text: [int(digit) for digit in text.decode()]


model = Table()
alone, together = [model.embed(text) for text in ("123", "45")], model.embed(["123", "45"])
print("version:   llama-cpp-python 0.3.36")
print("expected:  texts embedded together have the vectors that they have alone")
print("behaviour: from the second on they have pieces of other tokens' vectors")
print(f"seen:      vectors of tokens 4 and 5 behind a text of 1, 2 and 3: {together[1]}, alone {alone[1]}")
sys.exit(not (together[0] == alone[0] and alone[1] == [[4.0] * 4, [5.0] * 4] and together[1] == [[1.0, 2.0, 2.0, 2.0], [2.0, 3.0, 3.0, 3.0]]))
PYTHON
