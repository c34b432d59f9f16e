"""A draft model without a model: it knows what `fake_backend` says, and is wrong now and then."""

from array import array
from collections.abc import Callable, Sequence

from server.engine.scheduler.drafts import Drafting, Drafts, Piece
from server.engine.scheduler.slots import Layout
from tests.server.engine.fake_backend import N_VOCAB, WINDOW, following


class FakeDraft:
    """Implements `DraftModel`. One in `wrong` of its guesses is (0: none), one in `unsure` it is not sure of.

    It checks what llama.cpp would abort on, and that a row is behind the tokens that it is taken to be behind.
    """

    def __init__(
        self,
        layout: Layout,
        *,
        wrong: int = 0,
        unsure: int = 0,
        n_vocab: int = N_VOCAB,
        fails: Callable[[], bool] = lambda: False,
    ) -> None:
        self.layout = layout
        self.n_vocab = n_vocab
        self.memory: list[array[int]] = [array("i") for _ in range(layout.n_slots)]
        self.cells: list[list[int]] = [[] for _ in range(layout.n_slots)]
        self.batches: list[list[tuple[int, int]]] = []  # slots and numbers of tokens
        self._wrong, self._unsure, self._fails = wrong, unsure, fails
        self._rows: list[array[int]] = []
        self._next_cell = 0

    def drafts(self, n_max: int = 3, n_min: int = 0) -> Drafts:
        """What guesses with it."""
        return Drafts(self, Drafting(n_max=n_max, n_min=n_min), 0.1)

    @property
    def n_used(self) -> int:
        """Cells in use, shared ones once."""
        return len({cell for held in self.cells for cell in held})

    def evaluate(self, pieces: Sequence[Piece]) -> float | None:
        n_tokens = sum(len(piece.tokens) for piece in pieces)
        assert 0 < n_tokens <= self.layout.n_batch
        assert len(pieces) <= self.layout.n_outputs
        slots = [piece.slot for piece in pieces]
        assert slots == sorted(set(slots))
        if self._fails():
            return None
        self.batches.append([(piece.slot, len(piece.tokens)) for piece in pieces])
        self._rows = []
        for slot, start, tokens in pieces:
            assert len(self.memory[slot]) == start, "positions must follow one another"
            assert tokens
            assert max(tokens) < self.n_vocab
            self.memory[slot].extend(tokens)
            self.cells[slot] += range(self._next_cell, self._next_cell + len(tokens))
            self._next_cell += len(tokens)
            self._rows.append(self.memory[slot][:])
            assert len(self.memory[slot]) <= self.layout.n_ctx_seq
        assert not self.layout.unified or self.n_used <= self.layout.n_cells
        return 0.001 * n_tokens

    def likeliest(self, row: int, p_min: float) -> int | None:
        tokens = list(self._rows[row])
        if p_min and self._unsure and (sum(tokens) + len(tokens)) % self._unsure == 0:
            return None
        token = following(tokens)
        is_wrong = self._wrong and (sum(tokens) + 3 * len(tokens)) % self._wrong == 0
        return (token + bool(is_wrong)) % min(self.n_vocab, N_VOCAB)  # of its own vocabulary, as any model's

    def keep(self, slot: int, n_tokens: int) -> None:
        if n_tokens and n_tokens < len(self.memory[slot]):
            assert self.layout.kind == "full" or self.resumable(slot, n_tokens)
        del self.memory[slot][n_tokens:]
        del self.cells[slot][n_tokens:]

    def copy(self, source: int, target: int, n_tokens: int) -> None:
        assert not self.memory[target]
        assert source != target
        self.memory[target] = self.memory[source][:n_tokens]
        self.cells[target] = self.cells[source][:n_tokens]
        if not self.layout.unified:
            self.cells[target] = list(range(self._next_cell, self._next_cell + n_tokens))
            self._next_cell += n_tokens

    def resumable(self, slot: int, n_tokens: int) -> bool:
        return n_tokens > len(self.memory[slot]) - WINDOW
