"""Inputs of models that keep nothing: each token sees all of its sequence in the batch, before it and behind it.

Source: llama.cpp 0c1e570 src/llama-graph.cpp, llm_graph_input_attn_no_cache::set_input, llm_graph_input_pos_bucket::
set_input, llama_relative_position_bucket; src/llama-context.cpp, llama_context::encode (never causal).
"""

from collections.abc import Mapping
from math import log
from typing import Final

import numpy as np

from ggufphys.graph.ir import Tensor
from refengine.arrays import Array
from refengine.batch import Numbers
from refengine.inputs.filling import Fill, Filling
from refengine.memory.windows import beyond

FURTHEST: Final = 128  # distances from here on are in the last bucket


def _mask(tensor: Tensor, array: Array, filling: Filling) -> None:
    """0, or the distance negated where scores are biased by that; minus infinity to others. Windows look both ways."""
    positions, sequences = filling.tokens.positions, filling.tokens.sequences
    held, own = positions[np.newaxis, :], positions[:, np.newaxis]
    hidden = sequences[np.newaxis, :] != sequences[:, np.newaxis]
    if tensor.params[0]:
        hidden |= beyond("symmetric", filling.keys.integer("attention.sliding_window"), held, own)
    array[0, 0] = np.where(hidden, -np.inf, -np.abs(held - own) if filling.alibi else 0)


def _buckets(tensor: Tensor, array: Array, filling: Filling) -> None:
    n_buckets = filling.keys.integer("attention.relative_buckets_count")
    positions = filling.tokens.positions
    array[0, 0] = buckets(positions[np.newaxis, :] - positions[:, np.newaxis], n_buckets)


def buckets(distances: Numbers, n_buckets: int) -> Numbers:
    """Which bucket a distance falls into: small ones each have their own, larger ones share, in steps of a logarithm.

    Half of the buckets are for what lies behind.
    """
    half = n_buckets // 2
    exact = half // 2
    far = np.abs(distances)
    with np.errstate(divide="ignore"):  # of 0, which has a bucket of its own
        steps = np.log(np.float32(1) * far / exact) * (half - exact) / log(FURTHEST / exact)
        shared = np.minimum(np.floor(exact + steps), half - 1)
    found: Numbers = (distances > 0) * half + np.where(far < exact, far, shared).astype(np.int64)
    return found


ALONE: Final[Mapping[str, Fill]] = {"kq_mask_alone": _mask, "pos_bucket": _buckets}
