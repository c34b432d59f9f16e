"""What more does llama.cpp hold than was predicted, or less, by what was asked of it? Memory is resident once touched.

The prediction before the load is that of a prompt of one physical batch, with every slot's tokens drawn by llama.cpp's
samplers. In a cache that all share, a batch looks at all cells up to the last one in use, whosever they are, which
touches more of the compute buffer; smaller steps, and tokens that are simply the likeliest, touch less.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Final

from ggufphys import GGUFPhysError, open_gguf, predict_memory
from ggufphys.params import Params
from server.engine.counters import Counters

N_STEPS: Final = 16  # in which a cache is taken to fill, and a batch to grow

Growth = Callable[[Counters], int]
"""Bytes more than predicted (less: below zero) behind what an engine has done."""


def nothing(done: Counters) -> int:
    """Where nothing is known of it."""
    return 0


def growth_of(path: Path, params: Params) -> Growth:
    """That of a model that is run like this. Nothing is known of a file that can't be read any more."""
    n_streams = 1 if params.kv_unified else params.n_seq_max
    per_step = max(1, params.n_ubatch // N_STEPS)

    @cache
    def resident(n_prompt: int | None, n_batch: int | None, n_sampled: int | None) -> int:
        with open_gguf(path) as gguf:
            found = predict_memory(gguf, params, n_prompt=n_prompt, n_batch=n_batch, n_sampled=n_sampled)
        return found.process_bytes

    def growth(done: Counters) -> int:
        step = max(params.n_ubatch, -(-done.n_cells // n_streams // N_STEPS))
        n_prompt = max(params.n_ubatch, done.n_tokens_max // n_streams // step * step)
        n_batch = min(params.n_ubatch, max(1, -(-done.n_batch_max // per_step)) * per_step)
        try:
            return resident(n_prompt, n_batch, done.n_chains_max) - resident(None, None, None)
        except (OSError, GGUFPhysError):  # the model that is served was opened before
            return nothing(done)

    return growth
