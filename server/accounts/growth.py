"""What more does llama.cpp hold than was predicted, or less, by what was asked of it? Memory is resident once touched.

The prediction before the load is that of a prompt of one physical batch, with every slot's tokens drawn by llama.cpp's
samplers. In a cache that all share, a batch looks at all cells up to the last one in use, whosever they are, which
touches more of the compute buffer; smaller steps, and tokens that are simply the likeliest, touch less.

Predictions are a child's work, `python -m server.accounts.growth`: here they would leave megabytes behind, in the very
process whose memory is accounted for, and keep everybody's answers waiting for some tenths of a second.
"""

import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from ggufphys import GGUFPhysError, open_gguf, predict_memory
from ggufphys.machine.children import environment, module_command
from ggufphys.memory.process import CODE
from ggufphys.params import Params
from server.engine.counters import Counters
from server.engine.llama.beside import beside

N_STEPS: Final = 16  # in which a cache is taken to fill, and a batch to grow
TIMEOUT_S: Final = 60

OWN: Final = ("context", "prefill")  # phases of a process in which a context's own memory comes
SHARED: Final = ("heap", CODE)  # what comes in them once, however many contexts there are

Growth = Callable[[Counters], int]
"""Bytes more than predicted (less: below zero) behind what an engine has done."""
Touched = tuple[int, int, int]
"""The longest prompt, the largest step, the samplers at a time: `predict_memory`'s n_prompt, n_batch, n_sampled."""


def nothing(done: Counters) -> int:
    """Where nothing is known of it."""
    return 0


def growth_of(path: Path, params: Params) -> Growth:
    """The growth of a model that is run like this. Nothing is known of a file that can't be read any more."""
    n_streams = 1 if params.kv_unified else params.n_seq_max
    per_step = max(1, params.n_ubatch // N_STEPS)

    known: dict[tuple[str, Touched], int] = {}
    lock = threading.Lock()  # who asks for what another is finding out waits for that, and no second child is started

    def grown(what: str, touched: Touched) -> int:
        with lock:
            if (what, touched) not in known:
                known[what, touched] = found(what, touched)
            return known[what, touched]

    def found(what: str, touched: Touched) -> int:
        asked = pickle.dumps((what, path, params, touched))
        done = subprocess.run(
            module_command("server.accounts.growth"), input=asked, env=environment(), capture_output=True,
            timeout=TIMEOUT_S, check=True,
        )  # fmt: skip
        return int(done.stdout)

    def growth(done: Counters) -> int:
        step = max(params.n_ubatch, -(-done.n_cells // n_streams // N_STEPS))
        n_prompt = max(params.n_ubatch, done.n_tokens_max // n_streams // step * step)
        n_batch = min(params.n_ubatch, max(1, -(-done.n_batch_max // per_step)) * per_step)
        if params.embeddings:
            n_batch = max(1, done.n_batch_max)  # a row of logits for each of them may be a megabyte
        try:
            found = grown("more", (n_prompt, n_batch, done.n_chains_max))
            if done.n_embedders:
                found += done.n_embedders * grown("beside", (done.n_embedded_max, done.n_embedded_max, 0))
            return found
        except (OSError, subprocess.SubprocessError, ValueError):  # the model that is served was opened before
            return nothing(done)

    return growth


def grown_bytes(path: Path, params: Params, touched: Touched) -> int:
    """How much more is resident than before the load was predicted, where so much was asked for.

    Raises:
        GGUFPhysError, OSError: the file is not what it was, or has gone.
    """
    n_prompt, n_batch, n_sampled = touched
    with open_gguf(path) as gguf:
        found = predict_memory(gguf, params, n_prompt=n_prompt, n_batch=n_batch, n_sampled=n_sampled)
        return found.process_bytes - predict_memory(gguf, params).process_bytes


def beside_bytes(path: Path, params: Params, touched: Touched) -> int:
    """What a context for embeddings beside the one for text holds, of which nothing was predicted.

    Raises as `grown_bytes`.
    """
    n_prompt, n_batch, _ = touched
    with open_gguf(path) as gguf:
        n_ctx_seq = predict_memory(gguf, params).context.n_ctx_seq
        own = replace(beside(params, n_ctx_seq), embeddings=True, pooling="none")
        terms = predict_memory(gguf, own, n_prompt=n_prompt, n_batch=n_batch).terms
    return sum(t.nbytes for t in terms if t.quantity == "process" and t.phase in OWN and t.name not in SHARED)


ASKED: Final = {"more": grown_bytes, "beside": beside_bytes}

if __name__ == "__main__":
    try:
        what, *arguments = pickle.load(sys.stdin.buffer)
        sys.stdout.write(str(ASKED[what](*arguments)))
    except (GGUFPhysError, OSError) as error:
        sys.exit(str(error))
