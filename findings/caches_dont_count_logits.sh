#!/bin/sh
# LlamaRAMCache keeps states of llama-cpp-python by prompt, up to capacity_bytes: 2 GiB by default, and one would plan with that. What it
# counts is the part that llama.cpp wrote. The state holds a copy of the logits' array besides, n_batch rows for a prompt of n_batch tokens
# or more, used or not: 311 MB for 512 rows of a vocabulary of 151,936, beside the 7 MB that 600 tokens take in Qwen2.5-0.5B. A cache of
# "2 GiB" of those takes 90 GB.
# Source: llama-cpp-python 0.3.36 llama_cpp/llama_cache.py, LlamaRAMCache.cache_size (llama_state_size); llama_cpp/llama.py,
# Llama.save_state (scores=self._scores.copy()), Llama.__init__ (self.scores).
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet 'numpy==2.4.6' 'diskcache==5.6.3' 'jinja2==3.1.6' 'typing_extensions==4.16.0'
"$folder/env/bin/pip" download --quiet --no-deps --no-binary :all: --dest "$folder" 'llama-cpp-python==0.3.36'
"$folder/env/bin/python" - "$folder" <<'PYTHON'
import ctypes
import resource
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
# The package's Python, without its C library: llama.cpp's part of a state is the bytes below.
package = types.ModuleType("llama_cpp")
package.__path__ = [f"{folder}/{sdist}/llama_cpp"]
sys.modules["llama_cpp"] = package
for name in ("llama_cpp", "_internals", "_logger"):
    sys.modules[f"llama_cpp.{name}"] = mock.MagicMock()
STATE_BYTES = 100_000
library = sys.modules["llama_cpp.llama_cpp"]
library.llama_state_get_size = lambda _context: STATE_BYTES
library.llama_state_get_data = lambda _context, _data, size: size
library.ctypes = ctypes
from llama_cpp.llama import Llama
from llama_cpp.llama_cache import LlamaRAMCache

N_BATCH, N_VOCAB, N_PROMPT, N_STATES = 512, 8192, 600, 10


class Evaluated(Llama):
    """A model behind a prompt, without logits_all, as Llama.__init__ and Llama.eval leave it."""

    def __init__(self):
        self.verbose, self._seed, self._ctx = False, 1, mock.MagicMock()
        self.scores = numpy.ndarray((N_BATCH, N_VOCAB), numpy.float32)
        self.input_ids = numpy.zeros(2048, numpy.intc)
        self.n_tokens = N_PROMPT

    __del__ = close = lambda self: None


def resident():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


model, cache = Evaluated(), LlamaRAMCache(capacity_bytes=2 * N_STATES * STATE_BYTES)
before = resident()
for first in range(N_STATES):
    cache[[first] + [0] * (N_PROMPT - 1)] = model.save_state()
grown = resident() - before
print("version:   llama-cpp-python 0.3.36")
print("expected:  a cache takes as many bytes as it counts")
print("behaviour: it doesn't count the logits' array of each state, n_batch rows of the vocabulary")
print(f"seen:      {len(cache.cache_state)} states of {N_VOCAB} tokens' vocabulary: counted {cache.cache_size} of {cache.capacity_bytes} bytes, grown by {grown}")
sys.exit(not (cache.cache_size == N_STATES * STATE_BYTES < cache.capacity_bytes and grown > 0.9 * N_STATES * N_BATCH * N_VOCAB * 4))
PYTHON
