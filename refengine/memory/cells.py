"""Which cell of a cache holds which position of which sequence, and what may a token see?

Source: llama.cpp 0c1e570 src/llama-kv-cache.cpp, find_slot, apply_ubatch, set_input_kq_mask_impl, get_n_kv.
"""

from typing import Final

import numpy as np

from ggufphys.context import pad_ctx
from refengine.batch import Numbers, Tokens
from refengine.blocks import F32
from refengine.memory.windows import Window, beyond

EMPTY: Final = -1


class Cells:
    """The cells of one kind of cache: `(n_stream, n_cells)`, each empty or one token of one sequence.

    With one stream all sequences share its cells; else each sequence has the stream of its number. `n_swa` is the
    window's length, 0 for none. Physical batches come stream by stream, as many tokens of each.
    """

    def __init__(self, n_stream: int, n_cells: int, n_swa: int = 0, window: Window = "standard") -> None:
        self.n_swa = n_swa
        self.window = window
        self.positions: Numbers = np.full((n_stream, n_cells), EMPTY, np.int64)
        self.sequences: Numbers = np.full((n_stream, n_cells), EMPTY, np.int64)
        self.ids: Numbers = np.full((n_stream, n_cells), EMPTY, np.int64)
        self._heads = [0] * n_stream

    @property
    def n_stream(self) -> int:
        """How many streams there are."""
        return len(self._heads)

    def streams(self, tokens: Tokens) -> Numbers:
        """The streams of a batch's sequences: ascending."""
        return np.unique(tokens.sequences) if self.n_stream > 1 else np.zeros(1, np.int64)

    def take(self, tokens: Tokens) -> Numbers:
        """Put a batch into free cells, or into those that no window reaches any more: the cells' numbers, `(T,)`.

        Raises:
            ValueError: there are not enough.
        """
        streams = self.streams(tokens)
        share = len(tokens) // len(streams)
        parts = []
        for i, stream in enumerate(streams.tolist()):
            mine = slice(i * share, (i + 1) * share)
            found = self._take(stream, tokens.positions[mine], tokens.sequences[mine])
            self.ids[stream, found] = tokens.ids[mine]
            parts.append(found)
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
            usable |= beyond(self.window, self.n_swa, held, newest[owners] + 1)
        order = (head + np.arange(n_cells)) % n_cells
        found: Numbers = order[usable[order]][: len(positions)]
        if len(found) < len(positions):
            raise ValueError(f"{len(positions)} more tokens do not fit into a cache of {n_cells} cells: use more n_ctx")
        self._purge(stream, found)
        held[found], owners[found] = positions, sequences
        self._heads[stream] = (int(found[-1]) + 1) % n_cells
        return found

    def id_at(self, sequence: int, position: int) -> int | None:
        """The token of a sequence at a position, or the nearest before it; None where none is kept."""
        stream = sequence if self.n_stream > 1 else 0
        held = np.where(self.sequences[stream] == sequence, self.positions[stream], EMPTY)
        cell = int(np.argmax(np.where(held <= position, held, EMPTY)))
        return int(self.ids[stream, cell]) if 0 <= held[cell] <= position else None

    def _purge(self, stream: int, found: Numbers) -> None:
        """What is older than a token that is overwritten goes too: a sequence keeps no position behind a gap."""
        held, owners = self.positions[stream, found], self.sequences[stream, found]
        for sequence in np.unique(owners[owners != EMPTY]):
            self.remove(int(sequence), 0, int(held[owners == sequence].max()) + 1)

    def remove(self, sequence: int, first_position: int, end: int | None = None) -> None:
        """Forget a sequence from a position on, up to another."""
        gone = (self.sequences == sequence) & (self.positions >= first_position)
        if end is not None:
            gone &= self.positions < end
        self.positions[gone] = self.sequences[gone] = EMPTY
        for stream, row in enumerate(gone):
            if row.any():
                self._heads[stream] = min(self._heads[stream], int(np.argmax(row)))

    def n_kv(self, tokens: Tokens) -> int:
        """Cells up to the last that is taken in a batch's streams, rounded up so that one graph serves many steps."""
        used = np.flatnonzero((self.positions[self.streams(tokens)] != EMPTY).any(axis=0))
        n_used = int(used[-1]) + 1 if len(used) else 1
        return min(int(self.positions.shape[1]), pad_ctx(n_used))

    def mask(self, tokens: Tokens, n_kv: int, *, causal: bool, alibi: bool) -> F32:
        """What is added to the scores, `(S, 1, T / S, n_kv)` for the batch's S streams: -inf hides a cell from a token.

        With ALiBi, the others get minus their distance instead of 0.
        """
        streams = self.streams(tokens)
        shape = (len(streams), -1, 1)
        own = tokens.positions.reshape(shape)
        held = self.positions[streams, np.newaxis, :n_kv]
        seen = (held != EMPTY) & (self.sequences[streams, np.newaxis, :n_kv] == tokens.sequences.reshape(shape))
        if causal:
            seen &= held <= own
        if self.n_swa:
            seen &= ~beyond(self.window, self.n_swa, held, own)
        bias = -np.abs(own - held).astype(np.float32) if alibi else np.zeros(1, np.float32)
        return np.where(seen, bias, np.float32(-np.inf))[:, np.newaxis]
