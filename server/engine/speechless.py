"""What a backend has that generates nothing: `BaseEngine.submit` refuses requests for text, so none of it is called."""

from collections.abc import Sequence
from typing import Any, NoReturn

from ggufphys.logs.lines import LoggedBuffer
from server.engine.media import BLIND, Read
from server.engine.sampling import Sampling
from server.engine.scheduler.guesses import Guesser
from server.engine.scheduler.sequence import Chunk


class Speechless:
    """The part of `Backend` that is about text."""

    buffers: tuple[LoggedBuffer, ...] = ()

    def __init__(self) -> None:
        self.guesser = Guesser()

    def decode(self, chunks: Sequence[Chunk]) -> NoReturn:
        """Never."""
        raise AssertionError(chunks)

    def logits(self, row: int) -> Any:
        """Never."""
        raise AssertionError(row)

    def chooser(self, sampling: Sampling, index: int) -> NoReturn:
        """Never."""
        raise AssertionError(sampling)

    def keep(self, slot: int, n_tokens: int) -> None:
        """Never."""
        raise AssertionError(slot)

    def copy(self, source: int, target: int, n_tokens: int) -> None:
        """Never."""
        raise AssertionError(source)

    def read(self, file: bytes) -> Read:
        """Text alone is read."""
        del file
        raise ValueError(BLIND)

    def resumable(self, slot: int, n_tokens: int) -> bool:
        """Never."""
        raise AssertionError(slot)
