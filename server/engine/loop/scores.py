"""How likely was a token? Log-probabilities from a row of logits, for those who ask."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from server.engine.events import TokenInfo
from server.engine.runner import Odds

PieceOf = Callable[[int], bytes]


def token_info(logits: Any, token: int, n_top: int, piece: PieceOf) -> TokenInfo:
    """The token's log-probability and the `n_top` likeliest tokens, in float64 where sums are taken.

    `logits`: float32 `(n_vocab,)`, the model's own: softmax over all of them, before any sampler.
    """
    high = float(logits.max())
    log_sum = high + float(np.log(np.exp(logits - np.float32(high), dtype=np.float32).sum(dtype=np.float64)))
    top = []
    if n_top:
        n_top = min(n_top, len(logits))
        best = np.argpartition(logits, len(logits) - n_top)[len(logits) - n_top :]
        best = best[np.lexsort((best, -logits[best]))]
        top = [(int(t), piece(int(t)), float(logits[t]) - log_sum) for t in best]
    return TokenInfo(token=token, piece=piece(token), logprob=float(logits[token]) - log_sum, top=tuple(top))


def drawn_info(odds: Odds, token: int, n_top: int, piece: PieceOf) -> TokenInfo:
    """The token's probability among what all samplers left: it was drawn from `odds`."""
    top = tuple((each, piece(each), math.log(p)) for each, p in odds[:n_top])
    logprob = next((math.log(p) for each, p in odds if each == token), None)
    return TokenInfo(token=token, piece=piece(token), logprob=logprob, top=top)
