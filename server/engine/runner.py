"""What does an engine ask of that which computes? A loaded model in one context, whoever computes it."""

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Protocol, Self

from server.engine.protocol import ModelInfo, Sampling

Unwanted = Callable[[], bool]
"""Whether a load is to be given up."""


class Words(Protocol):
    """A tokenizer. Every method may be called from any thread."""

    n_vocab: int
    adds_bos: bool  # tokenize puts BOS in front by itself
    bos: int | None
    eos: int | None

    def tokenize(self, text: str) -> tuple[int, ...]:
        """Tokens of a prompt, special ones read and BOS added as the model wants. Raises UnicodeEncodeError."""
        ...

    def piece(self, token: int) -> bytes:
        """The bytes a token stands for: any part of a character, and none for control tokens."""
        ...

    def text(self, tokens: tuple[int, ...]) -> str:
        """The text of tokens, special ones written out."""
        ...

    def ends_generation(self, token: int) -> bool:
        """Whether the token ends a generation."""
        ...


class Chooser(Protocol):
    """Chooses the tokens of one generation."""

    def remember(self, tokens: Sequence[int]) -> None:
        """Let the penalties see the prompt."""
        ...

    def sample(self, row: int) -> int | None:
        """Choose a token from the logits that `Runner.evaluate` gave as `row`; None when they are no numbers."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


class Runner(Protocol):
    """A loaded model in one context with one sequence. But for its `words`, only the engine's thread uses it."""

    @property
    def info(self) -> ModelInfo:
        """The model, for the HTTP side."""
        ...

    @property
    def words(self) -> Words:
        """The model's tokenizer."""
        ...

    @property
    def n_step(self) -> int:
        """Tokens that can be evaluated at once."""
        ...

    def keep(self, n_tokens: int) -> bool:
        """Forget all but the first tokens of the sequence; False, and all forgotten, where memory cannot be cut."""
        ...

    def evaluate(self, tokens: tuple[int, ...], start: int, *, logits: bool) -> int:
        """Evaluate the sequence's tokens from position `start` on; where the last one's logits are, if asked for.

        Raises EngineError.
        """
        ...

    def chooser(self, sampling: Sampling) -> Chooser:
        """What chooses the tokens of a generation."""
        ...

    def close(self) -> None:
        """Free everything."""
        ...
