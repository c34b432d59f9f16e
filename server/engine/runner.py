"""What does an engine ask of a model that knows one sequence? And of any: a tokenizer, and what chooses tokens."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from server.engine.model_info import ModelInfo
from server.engine.sampling import Sampling
from server.engine.scheduler.slots import Kind

Unwanted = Callable[[], bool]
"""Whether a load is to be given up."""

Odds = Sequence[tuple[int, float]]
"""Tokens and their probabilities after all samplers, likeliest first; those of 0 are left out."""


class Words(Protocol):
    """A tokenizer. Every method may be called from any thread."""

    n_vocab: int
    adds_bos: bool  # tokenize puts BOS in front by itself
    bos: int | None
    eos: int | None

    def tokenize(self, text: str, *, add_special: bool = True, parse_special: bool = True) -> tuple[int, ...]:
        """Tokens of a text; BOS added as the model wants, special ones read. Raises UnicodeEncodeError."""
        ...

    def piece(self, token: int, *, special: bool = False) -> bytes:
        """The bytes a token stands for: any part of a character, and none for control tokens unless `special`."""
        ...

    def text(self, tokens: tuple[int, ...]) -> str:
        """The text of tokens, special ones written out."""
        ...

    def ends_generation(self, token: int) -> bool:
        """Whether the token ends a generation."""
        ...


class Chooser(Protocol):
    """Chooses the tokens of one answer. Close it when the answer is over."""

    def remember(self, tokens: Sequence[int]) -> None:
        """Let the penalties see the prompt."""
        ...

    def sample(self, row: int) -> int | None:
        """Choose a token from a row of logits of the last step, and remember it; None when they are no numbers."""
        ...

    def odds(self) -> Odds:
        """What the last token was drawn from, where sampling says `post_sampling_probs`."""
        ...

    def close(self) -> None:
        """Free it."""
        ...


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

    @property
    def kind(self) -> Kind:
        """What memory keeps of the sequence."""
        ...

    def keep(self, n_tokens: int) -> bool:
        """Forget all but the first tokens of the sequence; False, and all forgotten, where memory cannot be cut."""
        ...

    def evaluate(self, tokens: tuple[int, ...], *, rows: int) -> None:
        """Evaluate the next tokens of the sequence, with logits of the last `rows` of them. Raises EngineError."""
        ...

    def logits(self, row: int) -> Any:
        """A row of logits of the last evaluation, float32 `(n_vocab,)`."""
        ...

    def chooser(self, sampling: Sampling, index: int) -> Chooser:
        """What chooses the tokens of an answer. Raises ValueError for what it cannot do."""
        ...

    def close(self) -> None:
        """Free everything."""
        ...
