"""How likely endings are by the reference engine, as evaluation programs count it."""

import numpy as np

from refengine.model import Model


def scored(reference: Model, whole: tuple[int, ...], n_context: int) -> tuple[float, bool]:
    """The log-probability of what follows the first `n_context` tokens, and whether it is the likeliest each time."""
    logits = reference.logits(whole).astype(np.float64)
    high = logits.max(axis=1, keepdims=True)
    scores = logits - high - np.log(np.exp(logits - high).sum(axis=1, keepdims=True))
    rows = range(n_context - 1, len(whole) - 1)
    total = sum(float(scores[row, whole[row + 1]]) for row in rows)
    return total, all(int(logits[row].argmax()) == whole[row + 1] for row in rows)
