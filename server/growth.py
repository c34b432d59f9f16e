"""What more does llama.cpp hold as its cache fills? Prompts that look at more cells touch more of the compute buffer.

The prediction before the load is that of a prompt of one physical batch. In a cache that all share, a batch looks at
all cells up to the last one in use, whosever they are.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Final

from ggufphys import GGUFPhysError, open_gguf, predict_memory
from ggufphys.params import Params

N_STEPS: Final = 16  # in which a cache is taken to fill

Growth = Callable[[int, int], int]
"""Bytes more than predicted, once so many cells were in use at a time, of so many that there are."""


def nothing(n_used: int, n_cells: int) -> int:
    """Where nothing is known of it."""
    return 0


def growth_of(path: Path, params: Params) -> Growth:
    """That of a model that is run like this. Nothing is known of a file that can't be read any more."""

    @cache
    def resident(n_prompt: int) -> int:
        with open_gguf(path) as gguf:
            return predict_memory(gguf, params, n_prompt=n_prompt).process_bytes

    def growth(n_used: int, n_cells: int) -> int:
        n_streams = 1 if params.kv_unified else params.n_seq_max
        step = max(params.n_ubatch, -(-n_cells // n_streams // N_STEPS))
        n_prompt = n_used // n_streams // step * step
        if n_prompt <= params.n_ubatch:
            return 0
        try:
            return max(0, resident(n_prompt) - resident(params.n_ubatch))
        except (OSError, GGUFPhysError):  # the model that is served was opened before
            return nothing(n_used, n_cells)

    return growth
