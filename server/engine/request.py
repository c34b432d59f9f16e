"""What is asked of an engine: one prompt to go on from, and how."""

from dataclasses import dataclass
from typing import Final

from server.engine.media import Span
from server.engine.sampling import Sampling, Thoughts

DEFAULT_SAMPLING: Final = Sampling()

ActiveAdapters = tuple[tuple[int, float], ...]
"""LoRA adapters that a request is computed with: number and scale of each, by number, none of them 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """One prompt to go on from, `n` times. `max_tokens` None: until the model ends or the context is full.

    `n` answers are sampled from one evaluation of the prompt, each with its own seed (`seed + index`).
    `n_logprobs`: None for none, else log-probabilities of each token and of so many likeliest ones beside it.
    `n_prompt_logprobs`: the same of the prompt's tokens, which then are all evaluated, with a row of logits each.
    """

    prompt: tuple[int, ...]
    spans: tuple[Span, ...] = ()  # of the prompt, that are images or sounds
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
