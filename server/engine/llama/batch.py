"""A batch of tokens for one llama_decode: which token, at which position, of which sequence, with logits or without."""

import ctypes
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np

from server.engine.llama.handles import Context


class Batch:
    """A `llama_batch` of `capacity` tokens, each of one sequence. Close it, or use it in a `with`.

    The C arrays are written through numpy views made once: setting them element by element through ctypes costs 350 µs
    for 512 tokens, a view 2 µs.
    """

    def __init__(self, context: Context, capacity: int) -> None:
        # llama_decode asserts both limits (n_tokens <= n_batch, outputs <= n_outputs_max), so they are kept here.
        if not 1 <= capacity <= context.params.n_batch:
            raise ValueError(f"a batch of {capacity} tokens, expected 1 to n_batch = {context.params.n_batch}")
        self.capacity = capacity
        self.n_outputs_max = context.params.n_outputs_max
        self.n_outputs = 0
        self._n_tokens = 0
        self._api = context.api
        self._native: Any = self._api.llama_batch_init(capacity, 0, 1)
        self._token = _view(self._native.token, capacity, np.int32)
        self._pos = _view(self._native.pos, capacity, np.int32)
        self._logits = _view(self._native.logits, capacity, np.int8)
        _view(self._native.n_seq_id, capacity, np.int32)[:] = 1
        # seq_id is an array of pointers to arrays of one: point all of them into one of ours, for the same reason.
        self._seq_id = np.zeros(capacity, dtype=np.int32)
        # As numbers: the pointer objects that ctypes hands out alias the slots about to be overwritten.
        self._seq_slots = _view(ctypes.cast(self._native.seq_id, ctypes.POINTER(ctypes.c_size_t)), capacity, np.uintp)
        self._seq_pointers = self._seq_slots.copy()
        self._seq_slots[:] = self._seq_id.ctypes.data + np.arange(capacity) * self._seq_id.itemsize

    @property
    def n_tokens(self) -> int:
        """Tokens added since `clear`."""
        return self._n_tokens

    def clear(self) -> None:
        """Empty it for the next step."""
        self._n_tokens = 0
        self.n_outputs = 0

    def add(
        self, tokens: Sequence[int], *, seq_id: int, start: int, logits_of_last: bool, logits_of_all: bool = False
    ) -> int:
        """Append consecutive tokens of a sequence from position `start` on; the last one's place in the batch.

        Raises:
            ValueError: more tokens or more rows of logits than the batch can take.
        """
        first, n = self._n_tokens, len(tokens)
        if n == 0 or first + n > self.capacity:
            raise ValueError(f"{n} tokens behind {first}, expected 1 to {self.capacity - first}")
        n_rows = n if logits_of_all else int(logits_of_last)
        if self.n_outputs + n_rows > self.n_outputs_max:
            raise ValueError(f"more than n_outputs_max = {self.n_outputs_max} rows of logits in a batch")
        end = first + n
        if n == 1:  # an answer's next token: an element is set in a fifth of the time of a slice
            self._token[first], self._pos[first], self._seq_id[first] = tokens[0], start, seq_id
        else:
            self._token[first:end] = tokens
            self._pos[first:end] = np.arange(start, start + n, dtype=np.int32)
            self._seq_id[first:end] = seq_id
            self._logits[first:end] = logits_of_all
        self._logits[end - 1] = n_rows > 0
        self.n_outputs += n_rows
        self._n_tokens = end
        return end - 1

    def decode(self, context: Context) -> int:
        """Run llama_decode on it: its return code, 0 when all went well. Who looks at results waits for them."""
        self._native.n_tokens = self._n_tokens
        return int(self._api.llama_decode(context.pointer, self._native))

    def encode(self, context: Context) -> int:
        """Run llama_encode on it, for models whose encoder llama_decode leaves alone: its return code."""
        self._native.n_tokens = self._n_tokens
        return int(self._api.llama_encode(context.pointer, self._native))

    def close(self) -> None:
        """Free the C arrays; a second call does nothing."""
        if self._native is not None:
            self._seq_slots[:] = self._seq_pointers  # llama_batch_free frees what these point to
            self._api.llama_batch_free(self._native)
            self._native = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _view(pointer: Any, length: int, dtype: type[np.generic]) -> np.ndarray[Any, Any]:
    """A numpy view on a C array."""
    view: np.ndarray[Any, Any] = np.ctypeslib.as_array(pointer, shape=(length,))
    assert view.dtype == dtype
    return view
