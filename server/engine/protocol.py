"""What does the HTTP side ask of an engine, and what does it get back?

HTTP threads submit a `GenerationRequest` and read events from the `Generation` they get. How many requests run at a
time, in which thread and in which process, is the engine's business.
"""

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Protocol

from server.engine.counters import Counters
from server.engine.generation import Generation
from server.engine.media import Read
from server.engine.model_info import ModelInfo, Pooling
from server.engine.request import ActiveAdapters, GenerationRequest


class EngineStatus(StrEnum):
    """Whether requests can be submitted."""

    LOADING = "loading"
    READY = "ready"
    RESTARTING = "restarting"  # the worker process died; another one is loading
    FAILED = "failed"
    CLOSED = "closed"


IsOver = Callable[[], bool]
"""Whether nobody waits for an answer any more: asked now and then."""

Vectors = tuple[Sequence[float], ...]
"""One vector, or one for each token."""


class Engine(Protocol):
    """What runs the model. Every method may be called from any thread."""

    @property
    def status(self) -> EngineStatus:
        """Whether requests can be submitted."""
        ...

    @property
    def error(self) -> Exception | None:
        """Why the status is FAILED, or what the last worker died of."""
        ...

    @property
    def complaint(self) -> str:
        """What is wrong though the status is READY; empty: nothing."""
        ...

    @property
    def info(self) -> ModelInfo:
        """The model. Raises NotReadyError until it is loaded."""
        ...

    @property
    def counters(self) -> Counters:
        """What has been done since the start, and what is under way."""
        ...

    def tokenize(self, text: str, *, add_special: bool = True, parse_special: bool = True) -> tuple[int, ...]:
        """Tokens of a text; `add_special` adds BOS as the model wants, `parse_special` reads `<|im_start|>` and the
        like as the tokens they name.

        Raises NotReadyError, EngineError, UnicodeEncodeError.
        """
        ...

    def detokenize(self, tokens: tuple[int, ...]) -> str:
        """The text of tokens, special ones written out. Raises NotReadyError."""
        ...

    def pieces(self, tokens: tuple[int, ...]) -> tuple[bytes, ...]:
        """The bytes of each token, special ones written out. Raises NotReadyError."""
        ...

    def read(self, file: bytes) -> Read:
        """The tokens that an image or a sound is, and of the text that stands around it.

        Raises NotReadyError, or ValueError for what cannot be read, or not by this model.
        """
        ...

    def submit(self, request: GenerationRequest) -> Generation:
        """Queue a request.

        Raises NotReadyError, NoTextError, QueueFullError, ContextLengthError, or ValueError for an empty prompt, a
        token that is not in the vocabulary, or what this engine cannot do.
        """
        ...

    def embed(
        self,
        prompts: tuple[tuple[int, ...], ...],
        pooling: Pooling | None = None,
        adapters: ActiveAdapters = (),
        is_over: IsOver = lambda: False,
    ) -> tuple[Vectors, ...]:
        """A prompt's vectors, one, or one for each token without pooling; not normalised. `pooling` None: the file's.

        Raises NotReadyError, QueueFullError, EngineError (also where `is_over` says that nobody waits any more),
        TextLengthError, ValueError.
        """
        ...

    def close(self) -> None:
        """End what runs, fail what waits, free the model. A second call does nothing."""
        ...
