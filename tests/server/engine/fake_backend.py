"""A backend without a model: the token behind a sequence is a function of all that memory holds of it.

So an answer is known from its prompt alone, and any token that memory lost, doubled or gave to another changes it. It
checks what llama.cpp would abort on.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ggufphys.logs.lines import LoggedBuffer
from server.engine.backend import Outcome, Peaks, Reading
from server.engine.media import BLIND, Read, placeholders
from server.engine.model_info import ModelInfo, Pooling
from server.engine.request import ActiveAdapters
from server.engine.runner import Odds, Words
from server.engine.sampling import Sampling
from server.engine.scheduler.guesses import Drafter, Guesser
from server.engine.scheduler.sequence import Chunk
from server.engine.scheduler.slots import Layout
from tests.server.fake_engine import INFO

N_VOCAB = 50
EOG = 0
WINDOW = 4


def following(tokens: Sequence[int], adapters: ActiveAdapters = ()) -> int:
    """The token behind these, computed with adapters; one in a hundred sequences ends.

    Behind an even first token it depends on the last one alone, so that answers come to repeat themselves.
    """
    seen = tokens if tokens[0] % 2 else tokens[-1:]
    digest = hashlib.blake2b(bytes(token % 256 for token in seen) + str(adapters).encode(), digest_size=4).digest()
    value = int.from_bytes(digest)
    return EOG if value % 97 == 0 else 1 + value % (N_VOCAB - 1)


def answer_to(prompt: Sequence[int], n_max: int, adapters: ActiveAdapters = ()) -> list[int]:
    """What is generated behind a prompt: at most `n_max` tokens."""
    tokens = list(prompt)
    while len(tokens) - len(prompt) < n_max:
        tokens.append(following(tokens, adapters))
        if tokens[-1] == EOG:
            break
    return tokens[len(prompt) :]


class FakeWords:
    """A token's text is its number."""

    n_vocab = N_VOCAB
    adds_bos = False
    bos: int | None = None
    eos: int | None = EOG

    def tokenize(self, text: str, *, add_special: bool = True, parse_special: bool = True) -> tuple[int, ...]:
        return tuple(int(word) for word in text.split())

    def piece(self, token: int, *, special: bool = False) -> bytes:
        return b"%d " % token

    def text(self, tokens: tuple[int, ...]) -> str:
        return b"".join(map(self.piece, tokens)).decode()

    def ends_generation(self, token: int) -> bool:
        return token == EOG


class FakeChooser:
    """Takes the likeliest."""

    def __init__(self, backend: "FakeBackend") -> None:
        self._backend = backend
        backend.n_choosers += 1

    def remember(self, tokens: Sequence[int]) -> None:
        pass

    def sample(self, row: int) -> int:
        return int(self._backend.logits(row).argmax())

    def odds(self) -> Odds:
        return ()

    def close(self) -> None:
        self._backend.n_choosers -= 1


class FakeBackend:
    """Implements `Backend`. `spare`: cells that memory lacks, beyond what it says, so that batches find no room."""

    def __init__(
        self,
        layout: Layout,
        *,
        spare: int = 0,
        on_decode: Callable[[], Outcome | None] = lambda: None,
        drafters: Sequence[Drafter] = (),
    ) -> None:
        self.layout = layout
        self.guesser = Guesser(drafters)
        self.buffers: tuple[LoggedBuffer, ...] = ()
        self.peaks = Peaks()
        self.n_nodes: int | None = 0
        self.words: Words = FakeWords()
        self.info: ModelInfo = INFO
        self.n_texts = 1
        self.n_choosers = 0
        self.aborted = False
        self.n_evaluated = 0
        self.n_copied = 0
        self.steps: list[list[tuple[int, int, int]]] = []
        self._n_cells = layout.n_cells - spare
        self._on_decode = on_decode
        self._memory: list[list[tuple[int, int]]] = [[] for _ in range(layout.n_slots)]  # (cell, token), by position
        self._computed_with: dict[int, ActiveAdapters] = {}  # cells
        self._shapes: dict[
            int, str
        ] = {}  # in which cells were computed: of a piece by itself, or of a token among some
        self.shapes: dict[tuple[int, int], list[str]] = {}  # of all cells of an answer, when it last had a row
        self._next_cell = 0
        self._rows: list[int] = []

    @property
    def n_used(self) -> int:
        """Cells in use, shared ones once."""
        return len({cell for held in self._memory for cell, _ in held})

    def decode(self, chunks: Sequence[Chunk]) -> Outcome:
        n_tokens = sum(map(len, chunks))
        assert 0 < n_tokens <= self.layout.n_batch
        assert len({chunk.slot for chunk in chunks}) == len(chunks)
        (adapters,) = {chunk.sequence.adapters for chunk in chunks}
        outcome = self._on_decode()
        if outcome is Outcome.FULL or (self.layout.unified and self.n_used + n_tokens > self._n_cells):
            return Outcome.FULL
        if self.layout.block and (len(chunks) > 1 or not chunks[0].start < chunks[0].sequence.n_prompt):
            assert all(len(chunk) == 1 and chunk.sequence.n_generated for chunk in chunks), "answers and nothing else"
        for chunk in chunks:
            if chunk.span is not None or min(chunk.tokens) < 0:
                assert len(chunks) == 1, "an image is a step by itself"
                assert chunk.span is not None
                assert (chunk.start, chunk.end, chunk.n_rows) == (chunk.span.start, chunk.span.end, 0)
                assert tuple(chunk.tokens) == placeholders(chunk.span.file, chunk.span.part, len(chunk))
        self._rows = []
        self.steps.append([(chunk.sequence.id, chunk.start, len(chunk)) for chunk in chunks])
        for chunk in chunks:
            held = self._memory[chunk.slot]
            assert len(held) == chunk.start, "positions must follow one another"
            for at, token in enumerate(chunk.tokens):
                held.append((self._next_cell, token))
                self._computed_with[self._next_cell] = adapters
                self._shapes[self._next_cell] = "token" if len(chunk) == 1 else f"{len(chunk)} from {chunk.start}"
                self._next_cell += 1
                if at >= len(chunk) - chunk.n_rows:
                    self._rows.append(following([t for _, t in held], adapters))
            assert len(held) <= self.layout.n_ctx_seq
            if chunk.n_rows:
                self.shapes[chunk.sequence.id, chunk.sequence.index] = [self._shapes[cell] for cell, _ in held]
            assert {self._computed_with[cell] for cell, _ in held} == {adapters}
            if outcome is Outcome.ABORTED:
                return Outcome.ABORTED  # the first chunk is there, the others are not
        assert len(self._rows) <= self.layout.n_outputs
        self.n_evaluated += n_tokens
        return Outcome.DONE

    def logits(self, row: int) -> Any:
        logits = np.zeros(N_VOCAB, np.float32)
        logits[self._rows[row]] = 1
        return logits

    def chooser(self, sampling: Sampling, index: int) -> FakeChooser:
        if sampling.mirostat:
            raise ValueError("no mirostat here")
        return FakeChooser(self)

    def keep(self, slot: int, n_tokens: int) -> None:
        if n_tokens and n_tokens < len(self._memory[slot]):
            assert self.layout.kind != "recurrent"
            assert self.layout.kind == "full" or self.resumable(slot, n_tokens)
        del self._memory[slot][n_tokens:]

    def copy(self, source: int, target: int, n_tokens: int) -> None:
        assert not self._memory[target]
        assert self.layout.kind != "recurrent" or n_tokens == len(self._memory[source])
        self._memory[target] = self._memory[source][:n_tokens]
        self.n_copied += n_tokens
        if not self.layout.unified:
            copied = self._memory[target]
            self._memory[target] = [(self._next_cell + i, token) for i, (_, token) in enumerate(copied)]
            self._computed_with |= {self._next_cell + i: self._computed_with[c] for i, (c, _) in enumerate(copied)}
            self._shapes |= {self._next_cell + i: self._shapes[c] for i, (c, _) in enumerate(copied)}
            self._next_cell += n_tokens

    def resumable(self, slot: int, n_tokens: int) -> bool:
        return n_tokens > len(self._memory[slot]) - WINDOW

    def abort(self, wanted: bool) -> None:
        self.aborted = wanted

    def read(self, file: bytes) -> Read:
        raise ValueError(BLIND)

    def embed(
        self,
        prompts: Sequence[Sequence[int]],
        pooling: Pooling | None,
        adapters: ActiveAdapters,
        n_piece: Callable[[], int],
    ) -> Reading:
        n_left = len(prompts[0]) if len(prompts) == 1 else 0
        while (n := n_piece()) < n_left:
            n_left -= n
            yield n
        return [[np.array([len(prompt)], np.float32).tobytes()] for prompt in prompts]

    def close(self) -> None:
        pass
