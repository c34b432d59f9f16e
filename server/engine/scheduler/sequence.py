"""One answer under way, as the scheduler sees it: tokens, how many of them are evaluated, and its place."""

from array import array
from dataclasses import dataclass, field

from server.engine.media import Span, whole


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """How a request wants the tokens of its answers guessed; None: as the server has it."""

    n_max: int | None = None  # tokens at a time
    n_min: int | None = None  # fewer are not tried
    p_min: float | None = None  # a draft model's guess ends before a token that it finds less likely


@dataclass(slots=True, kw_only=True, eq=False)
class Sequence:
    """The prompt and what has been generated. `n_done` of `tokens` are in memory, the others wait to be evaluated.

    It has a slot from admission until it ends or is preempted. `leader`: another answer to the same prompt, which
    evaluates it for both.
    """

    id: int  # the request's
    index: int  # which of its answers
    order: int  # of arrival; the smaller, the older
    tokens: "array[int]"
    n_prompt: int
    spans: tuple[Span, ...] = ()  # of the prompt, that are images or sounds
    n_max: int  # tokens that may be there in the end, generated ones included
    cache_prompt: bool = True
    wants_all_rows: bool = False  # of logits: log-probabilities of the prompt
    leader: "Sequence | None" = None
    adapters: tuple[tuple[int, float], ...] = ()  # what it is computed with, besides the model
    wish: Wish | None = None  # how its tokens are guessed; None: not
    slot: int | None = None
    n_done: int = 0
    n_cached: int = 0  # of the prompt, at its first admission
    reevaluated: str = ""
    n_preempted: int = 0
    began: bool = False
    served_at: int = 0  # the last step that had a token of it
    waits_for: "Sequence | None" = field(default=None, repr=False)  # computes a prefix that this one will share
    waits_until: int = 0  # so many of its tokens are done
    first_step_s: float = 0.0  # of its first few tokens beside answers
    is_deep: bool = False  # as few take much longer by now
    n_scored: int = 0  # tokens of which all rows of logits have been had
    ended: bool = False

    @property
    def is_scoring(self) -> bool:
        """Whether rows of logits are still wanted for all tokens of the prompt."""
        return self.wants_all_rows and self.n_scored < self.n_prompt

    @property
    def is_of_scores(self) -> bool:
        """Whether its request has rows of logits for the whole prompt, be it of another answer."""
        return self.wants_all_rows or (self.leader is not None and self.leader.wants_all_rows)

    @property
    def n_pending(self) -> int:
        """Tokens that wait to be evaluated; behind the last of them a token is sampled."""
        return len(self.tokens) - self.n_done

    @property
    def next_span(self) -> Span | None:
        """The image or sound that is next to be evaluated, by itself; None: a token is."""
        if not self.spans:
            return None
        return next((span for span in self.spans if span.start == self.n_done), None)

    def up_to_span(self, end: int) -> int:
        """Where the tokens that go on from what is done, up to `end`, end because an image or sound begins."""
        return min((span.start for span in self.spans if self.n_done < span.start < end), default=end)

    def without_part(self, n: int) -> int:
        """How many of its first `n` tokens are no part of an image that goes on behind them."""
        return whole(self.spans, n)

    @property
    def n_generated(self) -> int:
        """Tokens sampled so far."""
        return len(self.tokens) - self.n_prompt

    @property
    def may_reuse(self) -> bool:
        """Whether what memory holds of its tokens may be used."""
        return self.cache_prompt and not self.is_scoring

    @property
    def is_over(self) -> bool:
        """Whether there is no room for another token."""
        return len(self.tokens) >= self.n_max


@dataclass(slots=True, kw_only=True, eq=False)
class Chunk:
    """Consecutive tokens of a sequence for one step, from position `start` to `end`; `row`: logits of the last.

    `guess` are tokens that may follow, among `tokens` too, with logits of each, so that it shows how many are right.
    """

    sequence: Sequence
    slot: int
    start: int
    end: int
    tokens: "array[int]"
    n_rows: int  # of logits, of the last tokens
    row: bool
    all_rows: bool = False  # of all tokens
    guess: tuple[int, ...] = ()
    span: Span | None = None  # it is this, an image or a sound

    def __len__(self) -> int:
        return len(self.tokens)

    def go_on(self) -> None:
        """Be the next token, of an answer that had one in this step."""
        self.start, self.end, self.tokens[0] = self.end, self.end + 1, self.sequence.tokens[-1]
