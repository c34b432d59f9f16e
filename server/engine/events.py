"""What becomes of a request, told event by event: text, its tokens, and how it ended."""

from dataclasses import dataclass
from typing import Literal

FinishReason = Literal["stop", "length", "cancelled"]
"""`stop`: end-of-generation token or stop string. `length`: max_tokens, the time, or the context is used up."""

Fault = Literal["request", "engine", "worker", "closed", "deadline"]
"""Who is to blame for a generation that failed: the request as it was, the engine, its process that died, or nobody.

`deadline`: it came too late to its turn, or to its first token.
"""


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
