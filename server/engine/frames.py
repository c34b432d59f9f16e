"""What passes between the engine's loop and whoever serves its readers, in one process or through a pipe.

Tuples, one batch a step: a step that only brought tokens is written by marshal (`Step.plain`), which takes a fifth of a
pickle's time. Logits never pass.
Times are time.perf_counter's, which is one clock for all processes of a machine (CLOCK_MONOTONIC, mach_absolute_time,
QueryPerformanceCounter).
"""

from typing import Any, NamedTuple

from server.engine.counters import Counters
from server.engine.events import Fault, FinishReason, TokenInfo
from server.engine.model_info import Pooling
from server.engine.request import ActiveAdapters, GenerationRequest


class Submit(NamedTuple):
    """To the loop: a request, under a number that its answers bear."""

    id: int
    request: GenerationRequest


class Cancel(NamedTuple):
    """To the loop: nobody waits for these any more; `answer` None: for none of a request's answers."""

    id: int
    answer: int | None = None


class Embed(NamedTuple):
    """To the loop: prompts to embed."""

    id: int
    prompts: tuple[tuple[int, ...], ...]
    pooling: Pooling | None
    adapters: ActiveAdapters = ()


Command = Submit | Cancel | Embed


class Began(NamedTuple):
    """A request's first answer has a place: its prompt is being evaluated."""

    id: int
    n_cached: int
    reevaluated: str


class Scored(NamedTuple):
    """Log-probabilities of a prompt's tokens from `start` on."""

    id: int
    start: int
    tokens: tuple[TokenInfo, ...]


class Evaluated(NamedTuple):
    """So many of a prompt's tokens are done."""

    id: int
    n_done: int


class Said(NamedTuple):
    """An answer's next token; `reason`: it was the last. `ends`: it is one that ends a generation and has no text."""

    id: int
    answer: int
    token: int
    piece: bytes
    info: TokenInfo | None
    ends: bool
    reason: FinishReason | None


class Gathered(NamedTuple):
    """An answer's next tokens together, each as the fields of `Said`, and when each of them came (`gathering`)."""

    id: int
    answer: int
    said: tuple[tuple[Any, ...], ...]
    times_s: tuple[float, ...]


class Drafted(NamedTuple):
    """So many tokens of an answer were guessed in this step, and so many of them were right."""

    id: int
    answer: int
    n_drafted: int
    n_accepted: int


class Ended(NamedTuple):
    """An answer ended without another token. `truncated`: since the context is full."""

    id: int
    answer: int
    reason: FinishReason


class Preempted(NamedTuple):
    """An answer gave its room to an older one and will be evaluated again."""

    id: int
    answer: int


class Broke(NamedTuple):
    """A request failed as a whole."""

    id: int
    message: str
    fault: Fault


class Embedded(NamedTuple):
    """Vectors: for each prompt its rows, float32, n_embd each."""

    id: int
    rows: tuple[tuple[bytes, ...], ...]


class Wrote(NamedTuple):
    """So many tokens of a request's answer the worker has had itself; their texts it sent then (`direct`).

    `text`: these, where events are not alike but for them. `held`: tokens that are to be shown with the next one.
    `rest` None: it goes on so. Else the answer is the readers' again, behind these bytes. `unsent` is to be sent first.
    """

    id: int
    n_tokens: int = 0
    times_s: tuple[float, ...] = ()
    text: str = ""
    rest: bytes | None = None
    held: tuple[tuple[int, bytes], ...] = ()
    unsent: bytes = b""


class Refused(NamedTuple):
    """An answer that was offered behind so many tokens stays the readers'; it may have been offered again meanwhile."""

    id: int
    n_tokens: int


Report = Began | Scored | Evaluated | Said | Gathered | Drafted | Ended | Preempted | Broke | Embedded | Wrote | Refused


class Step(NamedTuple):
    """What one step brought; `counters` now and then."""

    at_s: float
    reports: list[Report]
    counters: Counters | None

    def plain(self) -> "PlainStep | None":
        """As what marshal can write, if it brought tokens alone, as nearly all steps do."""
        if self.counters is not None:
            return None
        said = []
        for each in self.reports:
            if type(each) is not Said or each.info is not None:
                return None
            said.append(tuple(each))
        return self.at_s, said

    @classmethod
    def of(cls, plain: "PlainStep") -> "Step":
        """The step that a plain one was made of."""
        return cls(plain[0], [tuple.__new__(Said, each) for each in plain[1]], None)


PlainStep = tuple[float, list[tuple[Any, ...]]]
