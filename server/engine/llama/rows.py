"""The rows of logits of the last step, and which token each makes likeliest: one look at all of them."""

import ctypes
from collections.abc import Sequence
from math import isfinite
from typing import Any

import numpy as np

from server.engine.llama.handles import Context


class Rows:
    """`llama_get_logits` as a matrix, float32 `(n_rows, n_vocab)`, in the batch's order; valid until the next step.

    Source: llama.cpp 0c1e570 src/llama-context.cpp, get_logits.
    """

    def __init__(self, context: Context, n_vocab: int) -> None:
        self._context = context
        self._n_vocab = n_vocab
        self.places: Sequence[int] = ()  # of rows, in the batch
        self._at: Sequence[int] | None = None  # of rows, among all that there are, where others' are among them
        self._address = 0
        self._room: Any = None  # at that address, for as many rows as there may be
        self._best: list[int] | None = None

    def begin(self, places: Sequence[int], at: Sequence[int] | None = None) -> None:
        """A step has been evaluated, and has rows for these places of its batch: wait for them.

        `at`: which of all its rows these are, where there are others.
        """
        address = self._context.logits_address()
        if address != self._address:  # it is where it was but for the first steps
            values: Any = (ctypes.c_float * (self._context.params.n_outputs_max * self._n_vocab)).from_address(address)
            self._address, self._room = address, np.frombuffer(values, np.float32).reshape(-1, self._n_vocab)
        self.places, self._at, self._best = places, at, None

    def __getitem__(self, row: int) -> Any:
        """One row, float32 `(n_vocab,)`."""
        return self._room[row if self._at is None else self._at[row]]

    def best(self, row: int) -> int | None:
        """The likeliest token; None where the row has something that is no number, or nothing that is likely."""
        if self._best is None:
            n_rows = len(self.places) if self._at is None else self._at[-1] + 1
            self._best = self._room[:n_rows].argmax(axis=1).tolist()  # of a NaN, if there is one
        at = row if self._at is None else self._at[row]
        token = self._best[at]
        return token if isfinite(self._room.item(at, token)) else None
