"""What a text's vector is, of those of its tokens: where they are not pooled by who computes them."""

from collections.abc import Callable
from typing import Any, Final

import numpy as np

from server.engine.model_info import Pooling

POOLS: Final[dict[Pooling, Callable[[Any], Any]]] = {
    "none": lambda rows: rows,
    "mean": lambda rows: rows.mean(axis=0, keepdims=True),
    "cls": lambda rows: rows[:1],
    "last": lambda rows: rows[-1:],
}


def as_bytes(rows: Any, pooling: Pooling) -> list[bytes]:
    """The rows `(n_tokens, n_embd)` pooled, float32."""
    return [row.tobytes() for row in np.ascontiguousarray(POOLS[pooling](rows), np.float32)]
