"""What does the HTTP side ask of an engine, and what does it get back?

HTTP threads submit a `GenerationRequest` and read events from the `Generation` they get; the engine's own thread owns
the llama context and writes them. How many requests run at a time is the engine's business.
"""

import queue
import threading
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, Protocol

FinishReason = Literal["stop", "length", "cancelled"]
"""`stop`: end-of-generation token or stop string. `length`: max_tokens or the context is full."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How tokens are chosen; names and defaults are llama-server's. `temperature` 0 is greedy, `top_k` 0 all tokens."""

    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    seed: int | None = None  # None: another one each time
    repeat_penalty: float = 1.0
    repeat_last_n: int = 64  # tokens the three penalties look back on; -1: the whole context
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    ignore_eos: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """One prompt to go on from. `max_tokens` None: until the model ends or the context is full."""

    prompt: tuple[int, ...]
    max_tokens: int | None = None
    sampling: Sampling = Sampling()
    stop: tuple[str, ...] = ()
    cache_prompt: bool = True  # reuse what memory still holds of an earlier request's tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens of a generation. `n_cached` of the `n_prompt` were still in memory and not evaluated again."""

    n_prompt: int
    n_cached: int
    n_generated: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Where a generation's time went: waiting, evaluating the prompt (to the first token), generating the others."""

    queue_s: float
    prompt_s: float
    decode_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """The prompt is being evaluated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Text that can be shown: never empty, whole characters, no part of a stop string."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """The last event of a generation that ended as it should."""

    reason: FinishReason
    usage: Usage
    timings: Timings


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The last event of a generation that the engine could not complete."""

    message: str


Event = Started | Piece | Finished | Failed


class Generation:
    """A submitted request: the reader's end (`next_event`, `cancel`) and the engine's (`publish`, `cancelled`)."""

    def __init__(self, request: GenerationRequest) -> None:
        self.request = request
        self.submitted_at = time.perf_counter()
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._cancelled = threading.Event()

    def next_event(self, timeout_s: float | None = None) -> Event | None:
        """The next event, or None when there was none within `timeout_s`."""
        try:
            return self._events.get(timeout=timeout_s)
        except queue.Empty:
            return None

    def cancel(self) -> None:
        """Say that nobody reads on: the engine ends it before its next decode, and need not publish a last event."""
        self._cancelled.set()

    @property
    def cancelled(self) -> bool:
        """Whether the reader has gone."""
        return self._cancelled.is_set()

    def publish(self, event: Event) -> None:
        """Hand an event to the reader."""
        self._events.put(event)


class EngineStatus(StrEnum):
    """Whether requests can be submitted."""

    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """What the HTTP side needs to know of the model."""

    name: str
    n_ctx_seq: int
    n_ctx_train: int
    n_vocab: int
    n_embd: int
    n_params: int
    model_bytes: int
    chat_template: str  # empty: the file has none
    bos_text: str
    eos_text: str
    adds_bos: bool  # tokenize puts BOS in front by itself


class Engine(Protocol):
    """What runs the model. Every method may be called from any thread."""

    @property
    def status(self) -> EngineStatus:
        """Whether requests can be submitted."""
        ...

    @property
    def error(self) -> Exception | None:
        """Why the status is FAILED."""
        ...

    @property
    def info(self) -> ModelInfo:
        """The model. Raises NotReadyError until it is loaded."""
        ...

    def tokenize(self, text: str) -> tuple[int, ...]:
        """Tokens of a prompt, special ones read and BOS added as the model wants.

        Raises NotReadyError, EngineError, UnicodeEncodeError.
        """
        ...

    def detokenize(self, tokens: tuple[int, ...]) -> str:
        """The text of tokens, special ones written out. Raises NotReadyError."""
        ...

    def submit(self, request: GenerationRequest) -> Generation:
        """Queue a request.

        Raises NotReadyError, QueueFullError, ContextLengthError, or ValueError for an empty prompt or a token that is
        not in the vocabulary.
        """
        ...

    def close(self) -> None:
        """End what runs, fail what waits, free the model. A second call does nothing."""
        ...
