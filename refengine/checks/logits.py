"""How far are our logits from llama.cpp's? A prompt and some steps behind it, the same tokens on both sides."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from refengine.batch import Tokens
from refengine.blocks import F32


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Of two arrays of logits: normalised mean square error, the largest difference, how often the same is likeliest.

    `nmse` is mse(a, b) / mse(a, 0) with llama.cpp's as a.
    """

    n_positions: int
    nmse: float
    max_abs: float
    top1: float


def agreement(reference: F32, ours: F32) -> Agreement:
    """Compare `(n_positions, n_vocab)` with the same of llama.cpp.

    Logits that both make as low as can be (-inf, or the least float) count for the best token alone: their squares
    would hide all others.
    """
    same = reference.argmax(axis=-1) == ours.argmax(axis=-1)
    least = np.finfo(np.float32).min
    possible = (reference > least) | (ours > least)
    a, b = reference[possible].astype(np.float64), ours[possible].astype(np.float64)
    return Agreement(
        n_positions=len(reference),
        nmse=float(np.square(a - b).mean() / np.square(a).mean()),
        max_abs=float(np.abs(a - b).max()),
        top1=float(same.mean()),
    )


def steps(tokens: Sequence[int], n_prompt: int) -> list[Tokens]:
    """One sequence as batches: the prompt, then each token by itself."""
    ids = np.asarray(tokens, np.int64)
    return [
        Tokens(ids=ids[a:b], positions=np.arange(a, b), sequences=np.zeros(b - a, np.int64))
        for a, b in pairwise([0, *range(n_prompt, len(ids) + 1)])
    ]
