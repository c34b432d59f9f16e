"""Which tokens are judged, and what does the model see before each? The windows of llama-perplexity.

A text is cut into windows of `n_ctx` tokens that share nothing. Of each, the second half is judged, so that every
judged token has at least half a window before it.

Source: llama.cpp 0c1e570 tools/perplexity/perplexity.cpp, perplexity, kl_divergence.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Tokens = npt.NDArray[np.int32]
SHORTEST: Final = 16
"""Tokens of the shortest window that is chosen for a short text."""


@dataclass(frozen=True, slots=True)
class Windows:
    """`tokens` are `(n_windows, n_ctx)`; what is read begins with `bos` where the model's settings ask for it."""

    tokens: Tokens
    bos: int | None

    @property
    def n_ctx(self) -> int:
        """Tokens of a window."""
        return int(self.tokens.shape[1])

    @property
    def first(self) -> int:
        """The first position whose prediction is judged."""
        return self.n_ctx // 2

    @property
    def n_judged(self) -> int:
        """Judged tokens of a window: the last position's prediction has no token to be judged by."""
        return self.n_ctx - 1 - self.first

    @property
    def targets(self) -> Tokens:
        """The judged tokens, `(n_windows, n_judged)`."""
        return self.tokens[:, self.first + 1 :]

    @property
    def read(self) -> Tokens:
        """What the model reads, `(n_windows, n_ctx)`."""
        if self.bos is None:
            return self.tokens
        read = self.tokens.copy()
        read[:, 0] = self.bos
        return read


def windows_of(tokens: Tokens, *, n_ctx: int, n_chunks: int, bos: int | None) -> Windows:
    """Cut a text's tokens into windows: `n_chunks` at most, 0 for all of them; what is left behind the last is dropped.

    Raises:
        ValueError: the text is shorter than a window, or a window has nothing to judge.
    """
    if n_ctx < 4:
        raise ValueError(f"windows of {n_ctx} tokens have nothing to judge: expected --ctx-size of at least 4")
    n_windows = len(tokens) // n_ctx
    if not n_windows:
        raise ValueError(
            f"the text has {len(tokens):,} tokens, expected at least {n_ctx:,}, one window: give more text, or a "
            "smaller --ctx-size"
        )
    n_windows = min(n_windows, n_chunks) if n_chunks else n_windows
    return Windows(tokens[: n_windows * n_ctx].reshape(n_windows, n_ctx), bos)


def fitting_n_ctx(n_tokens: int, n_ctx: int) -> int:
    """`n_ctx`, halved until a text of `n_tokens` has two windows, but never below `SHORTEST`."""
    while n_tokens < 2 * n_ctx and n_ctx // 2 >= SHORTEST:
        n_ctx //= 2
    return n_ctx
