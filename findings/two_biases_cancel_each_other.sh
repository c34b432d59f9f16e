#!/bin/sh
# A logit bias and a LogitsProcessor are one thing to llama-cpp-python: it makes a processor of the bias and appends it to those that the caller
# gave. It appends with list.extend and keeps what that returns, which is None. Whoever gives both so gets neither, without a word: a token
# that was banned may come, and a processor that keeps an answer in its form is never called. Its server does it, too, for a request with
# `logit_bias` and `min_tokens`.
# Source: llama-cpp-python 0.3.36 llama_cpp/llama.py, Llama._create_completion (logits_processor.extend), LogitsProcessorList;
# llama_cpp/server/app.py, prepare_request_resources (min_tokens).
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

import numpy

folder = sys.argv[1]
sdist = "llama_cpp_python-0.3.36"
with tarfile.open(f"{folder}/{sdist}.tar.gz") as archive:
    members = [member for member in archive.getmembers() if member.name.startswith(f"{sdist}/llama_cpp/") and member.name.endswith(".py")]
    archive.extractall(folder, members)
# The package's Python, without its C library: the logits come from below.
package = types.ModuleType("llama_cpp")
package.__path__ = [f"{folder}/{sdist}/llama_cpp"]
sys.modules["llama_cpp"] = package
for name in ("llama_cpp", "_internals", "_logger"):
    sys.modules[f"llama_cpp.{name}"] = mock.MagicMock()
sys.modules["llama_cpp.llama_cpp"].llama_vocab_is_eog = lambda _vocab, _token: False
from llama_cpp.llama import Llama, LogitsProcessorList

TOKENS = ["<s>", "a", "b", "c"]
LOGITS = numpy.array([0, 3, 2, 1], numpy.float32)


class Table(Llama):
    """A model that likes a best, b less and c least, whatever was before."""

    def __init__(self):
        self.model_path, self.verbose, self.cache, self.metadata = "table", False, None, {}
        self._n_ctx, self._logits_all, self._seed, self._stack, self.spm_infill = 16, False, 1, mock.MagicMock(), False
        self._model = mock.MagicMock()
        self._model.add_eos_token.return_value = False
        self._model.token_cls.return_value = self._model.token_sep.return_value = -1

    def token_bos(self):
        return 0

    def token_eos(self):
        return -1

    def tokenize(self, text, add_bos=True, special=False):
        return [TOKENS.index(letter) for letter in text.decode()]

    def detokenize(self, tokens, prev_tokens=None, special=False):
        return "".join(TOKENS[token] for token in tokens if token).encode()

    def generate(self, tokens, logits_processor=None, **_):
        scores = LOGITS if logits_processor is None else logits_processor(numpy.array(tokens), LOGITS)
        yield int(numpy.argmax(scores))


def without_b(_tokens, scores):
    return numpy.where(numpy.arange(len(TOKENS)) == TOKENS.index("b"), -numpy.inf, scores)


def answer(**settings):
    return Table().create_completion("a", max_tokens=1, **settings)["choices"][0]["text"]


no_a = {TOKENS.index("a"): -100}
seen = {
    "none": answer(), "bias against a": answer(logit_bias=no_a), "processor against b": answer(logits_processor=LogitsProcessorList([without_b])),
    "both": answer(logit_bias=no_a, logits_processor=LogitsProcessorList([without_b])),
}
print("version:   llama-cpp-python 0.3.36")
print("expected:  with a bias against a and a processor against b it says c")
print("behaviour: it says a: both are dropped")
print("seen:     ", seen)
sys.exit(seen != {"none": "a", "bias against a": "b", "processor against b": "a", "both": "a"})
PYTHON
