"""Which cell of a cache holds which position of which sequence, and what may a token see?

Source: llama.cpp 0c1e570 src/llama-kv-cache.cpp, find_slot, set_input_kq_mask_impl, set_input_v_idxs, get_n_kv.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from ggufphys.params import pad_ctx
from refengine.blocks import F32

EMPTY: Final = -1

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """A batch: token ids, positions and sequences, `(T,)` each; of several streams all of one, then all of the next."""

    ids: Numbers
    positions: Numbers
    sequences: Numbers

    def __len__(self) -> int:
        return len(self.ids)


class Cells:
    """The cells of one kind of cache: `(n_stream, n_cells)`, each empty or one token of one sequence.

    With one stream all sequences share its cells; else each sequence has a stream of its own. `n_swa` is the window's
    length, 0 for none.
    """

    def __init__(self, n_stream: int, n_cells: int, n_swa: int = 0) -> None:
        self.n_swa = n_swa
        self.positions: Numbers = np.full((n_stream, n_cells), EMPTY, np.int64)
        self.sequences: Numbers = np.full((n_stream, n_cells), EMPTY, np.int64)
        self._heads = [0] * n_stream

    def take(self, tokens: Tokens) -> Numbers:
        """Put a batch into free cells, or into those that no window reaches any more: the cells' numbers, `(T,)`.

        Raises:
            ValueError: there are not enough.
        """
        n_stream = len(self._heads)
        share = len(tokens) // n_stream
        parts = []
        for stream in range(n_stream):
            mine = slice(stream * share, (stream + 1) * share)
            parts.append(self._take(stream, tokens.positions[mine], tokens.sequences[mine]))
        return np.concatenate(parts)

    def _take(self, stream: int, positions: Numbers, sequences: Numbers) -> Numbers:
        held, owners = self.positions[stream], self.sequences[stream]
        n_cells, head = len(held), self._heads[stream]
        usable = held == EMPTY
        if head > n_cells - int(usable.sum()) + 2 * len(positions):
            head = 0
        if self.n_swa:
            newest = np.zeros(int(owners.max(initial=0)) + 1, np.int64)
            np.maximum.at(newest, owners[owners >= 0], held[owners >= 0])
            usable |= newest[owners] + 1 - held >= self.n_swa
        order = (head + np.arange(n_cells)) % n_cells
        found: Numbers = order[usable[order]][: len(positions)]
        if len(found) < len(positions):
            raise ValueError(f"{len(positions)} more tokens do not fit into a cache of {n_cells} cells: use more n_ctx")
        held[found], owners[found] = positions, sequences
        self._heads[stream] = (int(found[-1]) + 1) % n_cells
        return found

    def remove(self, sequence: int, first_position: int) -> None:
        """Forget a sequence from a position on."""
        gone = (self.sequences == sequence) & (self.positions >= first_position)
        self.positions[gone] = self.sequences[gone] = EMPTY
        for stream, row in enumerate(gone):
            if row.any():
                self._heads[stream] = min(self._heads[stream], int(np.argmax(row)))

    @property
    def n_kv(self) -> int:
        """Cells up to the last that is taken, rounded up so that one graph serves many steps."""
        used = np.flatnonzero((self.positions != EMPTY).any(axis=0))
        n_used = int(used[-1]) + 1 if len(used) else 1
        return min(int(self.positions.shape[1]), pad_ctx(n_used))

    def mask(self, tokens: Tokens, n_kv: int, *, causal: bool, alibi: bool) -> F32:
        """What is added to the scores, `(n_stream, 1, T / n_stream, n_kv)`: -inf for cells that a token may not see.

        With ALiBi, the others get minus their distance instead of 0.
        """
        n_stream = len(self._heads)
        shape = (n_stream, -1, 1)
        own = tokens.positions.reshape(shape)
        held = self.positions[:, np.newaxis, :n_kv]
        seen = (held != EMPTY) & (self.sequences[:, np.newaxis, :n_kv] == tokens.sequences.reshape(shape))
        if causal:
            seen &= held <= own
        if self.n_swa:
            seen &= own - held < self.n_swa
        bias = -np.abs(own - held).astype(np.float32) if alibi else np.zeros(1, np.float32)
        return np.where(seen, bias, np.float32(-np.inf))[:, np.newaxis]
