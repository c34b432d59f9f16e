"""The rows of logits of the last step, and which token each makes likeliest: one look at all of them."""

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np

from server.engine.handles import Context


class Rows:
    """`llama_get_logits` as a matrix, float32 `(n_rows, n_vocab)`, in the batch's order; valid until the next step.

    Source: llama.cpp 0c1e570 src/llama-context.cpp, get_logits.
    """

    def __init__(self, context: Context, n_vocab: int) -> None:
        self._context = context
        self._n_vocab = n_vocab
        self.places: Sequence[int] = ()  # of rows, in the batch
        self._matrix: Any = None
        self._best: list[int | None] | None = None

    def begin(self, places: Sequence[int]) -> None:
        """A step is done, and has rows for these places of its batch."""
        self.places, self._matrix, self._best = places, None, None

    def __getitem__(self, row: int) -> Any:
        """One row, float32 `(n_vocab,)`."""
        return self._all()[row]

    def best(self, row: int) -> int | None:
        """The likeliest token; None where the row has something that is no number, or nothing that is likely."""
        if self._best is None:
            matrix = self._all()
            tokens = matrix.argmax(axis=1)  # of a NaN, if there is one
            are_numbers = np.isfinite(matrix[np.arange(len(tokens)), tokens]).tolist()
            self._best = [token if fine else None for token, fine in zip(tokens.tolist(), are_numbers, strict=True)]
        return self._best[row]

    def _all(self) -> Any:
        if self._matrix is None:
            pointer = self._context.api.llama_get_logits(self._context.pointer)
            n = len(self.places) * self._n_vocab
            # Not np.ctypeslib.as_array: it makes a type for each shape, which takes longer than to look at the row.
            values: Any = (ctypes.c_float * n).from_address(ctypes.addressof(pointer.contents))
            self._matrix = np.frombuffer(values, np.float32).reshape(len(self.places), self._n_vocab)
        return self._matrix
