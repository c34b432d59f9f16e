"""What does the HTTP side ask of an engine, and what does it get back?

HTTP threads submit a `GenerationRequest` and read events from the `Generation` they get. How many requests run at a
time, in which thread and in which process, is the engine's business.
"""

import queue
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal, Protocol

from server.engine.counters import Counters
from server.engine.sampling import Sampling, Thoughts
from server.engine.ways import Way

DEFAULT_SAMPLING: Final = Sampling()
NOT_ASKED: Final = "it was started without --model-draft and --spec-type"

FinishReason = Literal["stop", "length", "cancelled"]
"""`stop`: end-of-generation token or stop string. `length`: max_tokens, the time, or the context is used up."""

Fault = Literal["request", "engine", "worker", "closed", "deadline"]
"""Who is to blame for a generation that failed: the request as it was, the engine, its process that died, or nobody.

`deadline`: it came too late to its turn, or to its first token.
"""


ActiveAdapters = tuple[tuple[int, float], ...]
"""LoRA adapters that a request is computed with: number and scale of each, by number, none of them 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """A LoRA adapter that is loaded beside the model; its number is its place among them.

    `scale` is that of requests that ask for none by number or by model; `named_scale` that of the model NAME:`name`.
    """

    path: str
    name: str = ""
    scale: float = 1.0
    named_scale: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """One prompt to go on from, `n` times. `max_tokens` None: until the model ends or the context is full.

    `n` answers are sampled from one evaluation of the prompt, each with its own seed (`seed + index`).
    `n_logprobs`: None for none, else log-probabilities of each token and of so many likeliest ones beside it.
    `n_prompt_logprobs`: the same of the prompt's tokens, which then are all evaluated, with a row of logits each.
    """

    prompt: tuple[int, ...]
    max_tokens: int | None = None
    sampling: Sampling = DEFAULT_SAMPLING
    stop: tuple[str, ...] = ()
    cache_prompt: bool = True  # reuse what memory still holds of earlier requests' tokens
    n: int = 1
    n_logprobs: int | None = None
    n_prompt_logprobs: int | None = None
    return_tokens: bool = False  # pieces name their tokens, also without log-probabilities
    show_end: bool = False  # and so they do with the token that ends a generation, which has no text
    whole: bool = False  # nobody looks at its pieces one by one: they may come late, and several as one
    report_progress: bool = False  # `Progress` events while the prompt is evaluated
    shown: frozenset[int] = frozenset()  # control tokens whose text is shown, too
    max_generation_s: float | None = None  # from the first token on; ends at the end of a line
    n_indent: int = 0  # ends at a line, but for the first, that is indented by fewer blanks
    adapters: ActiveAdapters | None = None  # None: those of requests that ask for none
    draft_max: int | None = None  # tokens guessed at a time, if tokens are guessed at all; None: as the server has it
    draft_min: int | None = None  # guesses of fewer are not tried
    draft_p_min: float | None = None  # a draft model's guess ends before a token that it finds less likely
    thoughts: Thoughts | None = None  # what is to be done about them while tokens are chosen
    begins_by_s: float | None = None  # time.perf_counter's time: fails if it still waits for its turn then
    ends_by_s: float | None = None  # likewise: fails if it has no first token then, else it is cut off


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenInfo:
    """A token, its bytes (part of a character, or none), and log-probabilities if they were asked for.

    They are natural logarithms of the model's own distribution (softmax over all logits, before any sampler).
    `logprob` of a prompt's first token is None: nothing precedes it.
    """

    token: int
    piece: bytes
    logprob: float | None = None
    top: tuple[tuple[int, bytes, float], ...] = ()  # token, bytes, log-probability; likeliest first


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens of one answer. `n_cached` of the `n_prompt` were still in memory and not evaluated again."""

    n_prompt: int
    n_cached: int
    n_generated: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Where an answer's time went: waiting, evaluating the prompt (to the first token), generating the others.

    `reevaluated` says why tokens that memory held were evaluated again, empty if none were: `Reuse` has the words.
    """

    queue_s: float
    prompt_s: float
    decode_s: float
    reevaluated: str = ""
    n_preempted: int = 0  # times that it was put back for want of room
    n_drafted: int = 0  # tokens guessed
    n_draft_accepted: int = 0  # of them, right ones


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """The prompt is being evaluated; `n_cached` of its tokens were in memory."""

    n_cached: int = 0
    reevaluated: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """So much of the prompt is done. Only if asked for."""

    n_prompt: int
    n_cached: int
    n_done: int  # cached ones included
    elapsed_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptScores:
    """The prompt's tokens from position `start` on with their log-probabilities; all of them come in order."""

    start: int
    tokens: tuple[TokenInfo, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Text that can be shown: whole characters, no part of a stop string.

    `tokens` are those that it is the end of, if they were asked for: then, and only then, `text` may be empty.
    `times_s`: when it came, by time.perf_counter, or each of the pieces that it is made of; none: now.
    """

    text: str
    tokens: tuple[TokenInfo, ...] = ()
    index: int = 0
    times_s: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """The last event of an answer that ended as it should. With `n` answers there are `n` of them."""

    reason: FinishReason
    usage: Usage
    timings: Timings
    index: int = 0
    stop: str = ""  # the stop string that ended it
    truncated: bool = False  # the context was full


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The last event of a generation that could not be completed, whatever its `n`."""

    message: str
    fault: Fault = "engine"


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """Pieces that the engine has sent to the client itself, at these times, by time.perf_counter (`Generation.way`).

    `text`: theirs together, where the way's form is no plain one. `n_tokens`: of the answer that have been shown by
    now. `unsent`: bytes of theirs that the client did not take; they come before all that follows.
    """

    times_s: tuple[float, ...]
    text: str
    n_tokens: int
    unsent: bytes = b""


Event = Started | Progress | PromptScores | Piece | Written | Finished | Failed

Sink = Callable[[Event], bool]
"""Takes an event, and says whether it takes more."""


class Generation:
    """A submitted request: the reader's end (`next_event` or `attach`, `cancel`) and the engine's (`publish`).

    What it calls is given the generation and holds none: in a cycle it would outlive its answer by a thousand others,
    until Python's collector looks at all objects again.
    """

    def __init__(
        self, request: GenerationRequest, on_cancel: "Callable[[Generation], None]" = lambda generation: None
    ) -> None:
        self.request = request
        self.submitted_at = time.perf_counter()
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._cancelled = threading.Event()
        self._sink: Sink | None = None
        self._lock = threading.Lock()  # over the sink: events reach it in order, one at a time
        self._on_cancel = on_cancel
        self.n_pieces = [0] * request.n  # of each answer, that have come
        self.way: Way | None = None  # to the client, which the engine may go by itself, with whom that is agreed
        self.send: Callable[[bytes], object] | None = None  # while it may be going: sends what else is to be said
        # sees events but pieces, as the reader gets them
        self.watch: Callable[[Generation, Event], None] = lambda generation, event: None

    @property
    def n(self) -> int:
        """Answers that are asked for."""
        return self.request.n

    def next_event(self, timeout_s: float | None = None) -> Event | None:
        """The next event, or None when there was none within `timeout_s`."""
        try:
            event = self._events.get(timeout=timeout_s)
        except queue.Empty:
            return None
        if not isinstance(event, Piece):
            self.watch(self, event)
        return event

    def attach(self, sink: "Sink") -> None:
        """Have events, those first that wait already, handed to `sink` by the thread that publishes them.

        It must not raise and not take long, since other readers' events wait meanwhile. From when it returns False on,
        events are for `next_event` again.
        """
        with self._lock:
            while not self._events.empty():
                event = self._events.get()
                if not isinstance(event, Piece):
                    self.watch(self, event)
                if not sink(event):
                    self.way = None
                    return
            self._sink = sink

    def quiet(self) -> AbstractContextManager[object]:
        """While it is held, nothing is handed to a sink."""
        return self._lock

    def cancel(self) -> None:
        """Say that nobody reads on. The engine ends it within a step; a generation that is over is left as it is."""
        if not self._cancelled.is_set():
            self._cancelled.set()
            self._on_cancel(self)

    @property
    def cancelled(self) -> bool:
        """Whether the reader has gone."""
        return self._cancelled.is_set()

    def publish(self, event: Event) -> None:
        """Hand an event to the reader."""
        with self._lock:
            if isinstance(event, Piece):
                self.n_pieces[event.index] += len(event.times_s) or 1
            elif isinstance(event, Written):
                self.n_pieces[0] += len(event.times_s)
            if self._sink is None:
                self._events.put(event)
                return
            if not isinstance(event, Piece):
                self.watch(self, event)
            if not self._sink(event):
                self._sink = self.way = None  # whoever reads from here on writes himself


class EngineStatus(StrEnum):
    """Whether requests can be submitted."""

    LOADING = "loading"
    READY = "ready"
    RESTARTING = "restarting"  # the worker process died; another one is loading
    FAILED = "failed"
    CLOSED = "closed"


Pooling = Literal["none", "mean", "cls", "last", "rank"]
POOLINGS: Final[dict[Pooling, int]] = {"none": 0, "mean": 1, "cls": 2, "last": 3, "rank": 4}  # include/llama.h

IsOver = Callable[[], bool]
"""Whether nobody waits for an answer any more: asked now and then."""

Vectors = tuple[Sequence[float], ...]
"""One vector, or one for each token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InfillTokens:
    """Tokens that tell a model what stands before a middle, what behind it, and that it comes now.

    `repo` and `separator` stand before a repository's name and each file's, where the model knows of them.
    """

    prefix: int
    suffix: int
    middle: int
    repo: int | None = None
    separator: int | None = None


Tokens = tuple[int, ...]


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
    n_slots: int = 1  # answers that can be under way at a time
    pooling: Pooling = "none"  # of embeddings, as the file has it
    generates: bool = True  # False: vectors of texts are all that it gives
    n_text_max: int | None = None  # tokens that a text to embed may have; None: the engine finds out
    n_batch: int = 2048  # tokens in a batch at most, as asked
    n_block: int = 0  # slots whose answers go together so that others change no bit; 0: as they come
    infill: InfillTokens | None = None  # None: the model knows of no middle
    adapters: tuple[Adapter, ...] = ()
    guesses: tuple[str, ...] = ()  # how tokens are guessed, llama-server's words; none: they are not
    why_no_guess: str = NOT_ASKED
    tool_template: str = ""  # for conversations with tools, where the file has one of its own for them
    scores: bool = False  # it has what makes scores of texts
    rank_template: str = ""  # for a {query} and a {document} that is to be ranked
    pair: tuple[Tokens, Tokens, Tokens] | None = None  # without one: what stands before, between and behind these


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
