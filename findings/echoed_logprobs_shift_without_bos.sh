#!/bin/sh
# With echo and logprobs llama-cpp-python gives each token of the prompt the log-probability it had after those before it, which is how
# evaluations score text. It does so for models that begin with BOS. For those without (SmolLM2, Qwen2.5) each token gets the probability that
# it would have had one place later, after itself: the row of logits behind a token is taken for the row before it, since the alignment
# comes from the BOS that is cut off. "abc", of which each letter all but demands the next, so scores as all but impossible.
# Source: llama-cpp-python 0.3.36 llama_cpp/llama.py, Llama._create_completion ("Remove leading BOS token if exists", token_offset).
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet 'numpy==2.4.6' 'diskcache==5.6.3' 'jinja2==3.1.6' 'typing_extensions==4.16.0'
"$folder/env/bin/pip" download --quiet --no-deps --no-binary :all: --dest "$folder" 'llama-cpp-python==0.3.36'
"$folder/env/bin/python" - "$folder" <<'PYTHON'
import math
import sys
import tarfile
import types
from unittest import mock

import numpy

folder = sys.argv[1]
sdist = "llama_cpp_python-0.3.36"
with tarfile.open(f"{folder}/{sdist}.tar.gz") as archive:
    members = [member for member in archive.getmembers() if member.name.startswith(f"{sdist}/llama_cpp/") and member.name.endswith(".py")]
    archive.extractall(folder, members)
# The package's Python, without its C library: what is asked of the library is answered by the table below.
package = types.ModuleType("llama_cpp")
package.__path__ = [f"{folder}/{sdist}/llama_cpp"]
sys.modules["llama_cpp"] = package
for name in ("llama_cpp", "_internals", "_logger"):
    sys.modules[f"llama_cpp.{name}"] = mock.MagicMock()
sys.modules["llama_cpp.llama_cpp"].llama_vocab_is_eog = lambda _vocab, _token: False
from llama_cpp.llama import Llama

TOKENS = ["<s>", "a", "b", "c"]


class Table(Llama):
    """A model that knows the alphabet: each token is followed by the next of the list with 0.97, and by each other one with 0.01."""

    def __init__(self, begins_with_bos):
        self.model_path, self.verbose, self.cache, self.metadata = "table", False, None, {}
        self._n_ctx, self._logits_all, self._seed, self._stack, self.spm_infill = 16, True, 1, mock.MagicMock(), False
        self.scores = numpy.full((16, len(TOKENS)), math.log(0.01), numpy.float32)
        self.n_tokens = 0
        self._model = mock.MagicMock()
        self._model.add_bos_token.return_value = begins_with_bos
        self._model.add_eos_token.return_value = False
        self._model.token_cls.return_value = self._model.token_sep.return_value = -1

    def token_bos(self):
        return 0

    def token_eos(self):
        return -1

    def set_seed(self, seed):
        pass

    def tokenize(self, text, add_bos=True, special=False):
        return [TOKENS.index(letter) for letter in text.decode()]

    def detokenize(self, tokens, prev_tokens=None, special=False):
        return "".join(TOKENS[token] for token in tokens if token).encode()

    def generate(self, tokens, **_):
        for position, token in enumerate(tokens):
            self.scores[position, (token + 1) % len(TOKENS)] = math.log(0.97)
        self.n_tokens = len(tokens)
        yield int(numpy.argmax(self.scores[self.n_tokens - 1]))


def scores(begins_with_bos):
    answer = Table(begins_with_bos).create_completion("abc", max_tokens=1, echo=True, logprobs=1, temperature=0)
    found = answer["choices"][0]["logprobs"]
    return [None if value is None else round(math.exp(value), 2) for value in found["token_logprobs"]][:3]


with_bos, without = scores(True), scores(False)
print("version:   llama-cpp-python 0.3.36")
print("expected:  echoed tokens have the probability that they had where they stand: a (not known), b 0.97, c 0.97")
print("behaviour: so they have with BOS; without, the one that they would have had behind themselves")
print(f"seen:      probabilities of a, b, c with BOS: {with_bos}, without: {without}")
sys.exit((with_bos, without) != ([None, 0.97, 0.97], [None, 0.01, 0.01]))
PYTHON
