"""What does the engine's loop ask of that which computes? A loaded model in one context with several slots."""

from array import array
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol, TypeAlias

from ggufphys.logs.lines import LoggedBuffer
from server.engine.errors import EngineError
from server.engine.media import BLIND, Read
from server.engine.model_info import ModelInfo, Pooling
from server.engine.request import ActiveAdapters
from server.engine.runner import Chooser, Runner, Words
from server.engine.sampling import Sampling
from server.engine.scheduler.guesses import Guesser
from server.engine.scheduler.sequence import Chunk
from server.engine.scheduler.slots import Layout

Reading: TypeAlias = Generator[int, None, list[list[bytes]]]
"""Embeds texts piece by piece: behind each piece but the last it yields how many tokens that had. Then it returns the
vectors of each text, float32."""


class Outcome(Enum):
    """How the evaluation of a step ended."""

    DONE = "done"
    FULL = "full"  # no room in memory, which is as it was before
    ABORTED = "aborted"  # memory may hold any part of it


@dataclass(frozen=True, slots=True)
class Peaks:
    """The most that was asked of a backend at a time: what memory it touches for that, it keeps."""

    n_batch: int = 0  # tokens in a step
    n_chains: int = 0  # answers whose tokens llama.cpp's samplers chose, each beside a vocabulary of candidates
    n_embedders: int = 0  # contexts for embeddings beside that for text
    n_embedded: int = 0  # tokens in a pass of theirs


class Backend(Protocol):
    """A loaded model in one context. Only the loop's thread uses it, but for `words` and `abort`."""

    @property
    def info(self) -> ModelInfo:
        """The model, for the HTTP side."""
        ...

    @property
    def words(self) -> Words:
        """The model's tokenizer."""
        ...

    @property
    def layout(self) -> Layout:
        """The room that the context has."""
        ...

    @property
    def guesser(self) -> Guesser:
        """What guesses tokens; false if nothing does."""
        ...

    @property
    def buffers(self) -> tuple[LoggedBuffer, ...]:
        """What the library said of its memory while it loaded."""
        ...

    @property
    def peaks(self) -> Peaks:
        """The most that was asked of it at a time."""
        ...

    def decode(self, chunks: Sequence[Chunk]) -> Outcome:
        """Evaluate a step. Its rows of logits are numbered through, in the order of the chunks.

        Raises EngineError; memory is then cleared.
        """
        ...

    def logits(self, row: int) -> Any:
        """A row of logits of the last step, float32 `(n_vocab,)`, valid until the next one."""
        ...

    def chooser(self, sampling: Sampling, index: int) -> Chooser:
        """What chooses the tokens of one answer. Raises ValueError for what cannot be sampled so."""
        ...

    def keep(self, slot: int, n_tokens: int) -> None:
        """Forget all but a slot's first tokens."""
        ...

    def copy(self, source: int, target: int, n_tokens: int) -> None:
        """Give the target, which is empty, the source's first tokens."""
        ...

    def resumable(self, slot: int, n_tokens: int) -> bool:
        """Whether a slot of a windowed model can be gone on with behind its first tokens."""
        ...

    def abort(self, wanted: bool) -> None:
        """Ask a decode under way to end, or later ones not to; from any thread, and without effect where it cannot."""
        ...

    @property
    def n_nodes(self) -> int | None:
        """Grows while a decode is under way; None: that can't be seen. From any thread."""
        ...

    def read(self, file: bytes) -> Read:
        """The tokens that an image or sound is, from any thread. Raises ValueError for what cannot be read."""
        ...

    @property
    def n_texts(self) -> int:
        """Texts that one pass of `embed` takes."""
        ...

    def embed(
        self,
        prompts: Sequence[Sequence[int]],
        pooling: Pooling | None,
        adapters: ActiveAdapters,
        n_piece: Callable[[], int],
    ) -> Reading:
        """Each prompt's vectors, all in one pass, but of one that is longer than `n_piece`, which is asked before
        each piece. Raises EngineError, ValueError.
        """
        ...

    def close(self) -> None:
        """Free everything."""
        ...


class SerialBackend:
    """A backend of one slot over a `Runner`, which knows one sequence."""

    buffers: tuple[LoggedBuffer, ...] = ()
    peaks = Peaks()
    n_nodes = None
    n_texts = 1

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self.guesser = Guesser()
        self.words = runner.words
        self.info = runner.info
        n, n_step = runner.info.n_ctx_seq, min(runner.n_step, runner.info.n_ctx_seq)
        self.layout = Layout(n_slots=1, n_ctx_seq=n, n_cells=n, n_batch=n_step, n_outputs=n_step, kind=runner.kind)

    def decode(self, chunks: Sequence[Chunk]) -> Outcome:
        """Evaluate the one chunk there can be."""
        (chunk,) = chunks
        self._runner.evaluate(tuple(chunk.tokens), rows=chunk.n_rows)
        return Outcome.DONE

    def logits(self, row: int) -> Any:
        """The logits of the last token."""
        return self._runner.logits(row)

    def chooser(self, sampling: Sampling, index: int) -> Chooser:
        """What chooses the tokens of an answer."""
        return self._runner.chooser(sampling, index)

    def keep(self, slot: int, n_tokens: int) -> None:
        """Forget all but the first tokens."""
        del slot
        if not self._runner.keep(n_tokens) and n_tokens:
            raise EngineError("memory that cannot be cut was to be cut")

    def copy(self, source: int, target: int, n_tokens: int) -> None:
        """There is nothing to copy to."""
        raise AssertionError((source, target, n_tokens))

    def resumable(self, slot: int, n_tokens: int) -> bool:
        """Not: what a window has dropped is not known here."""
        del slot, n_tokens
        return False

    def read(self, file: bytes) -> Read:
        """Text alone is read."""
        del file
        raise ValueError(BLIND)

    def abort(self, wanted: bool) -> None:
        """A step in numpy is not ended in the middle."""
        del wanted

    def embed(
        self,
        prompts: Sequence[Sequence[int]],
        pooling: Pooling | None,
        adapters: ActiveAdapters,
        n_piece: Callable[[], int],
    ) -> Reading:
        """Not with numpy."""
        del prompts, pooling, adapters, n_piece
        yield from ()
        raise ValueError("embeddings: not with the numpy engine; take --engine llama.cpp")

    def close(self) -> None:
        """Free everything."""
        self._runner.close()


def as_tokens(tokens: Sequence[int]) -> "array[int]":
    """Tokens as the scheduler keeps them."""
    return array("i", tokens)
