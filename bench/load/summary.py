"""What do the answers of a level say together? Rates, percentiles with their uncertainty, errors by kind."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from bench.load.client import Answer
from bench.load.goal import Goal
from bench.load.loops import Level, Round

PERCENTILES: Final = (50, 95, 99)
RESAMPLES: Final = 500
SATURATED: Final = 0.8  # of one core, by the client itself


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Percentiles of seconds; `low` and `high` bound the middle 95 % of what resampled answers give (bootstrap).

    They are None where one answer is all there is.
    """

    mean: float
    p50: float
    p95: float
    p99: float
    low: Mapping[str, float] | None
    high: Mapping[str, float] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """A level, all its repetitions together.

    Attributes:
        concurrency: clients at once; None in an open loop.
        rate_per_s: requests a second that were offered; None in a closed loop.
        n_requests: requests sent; `n_ok` of them answered to their end.
        errors: the others, by kind; `error_details` has an example of each.
        wall_s: seconds from the first request to the last answer, of all repetitions.
        req_per_s, tok_per_s, prompt_tok_per_s: answers, tokens generated, tokens read, by wall_s.
        tok_per_s_of_rounds: the repetitions' own figures.
        goodput_per_s: answers a second that kept the goal; None without one.
        ttft_s, gap_s, tpot_s, e2e_s: of complete answers; None where none has any.
        n_empty: complete answers without any content.
        n_counted: answers whose tokens the server counted itself.
        n_pieces_differ: of these, how many came in another number of pieces than tokens.
        n_miscounted: of these, how many came in more pieces than tokens, as no right count has it.
        n_prompt_mean, n_predict_mean: tokens of prompts and of answers as the server counted them, of complete answers
            that it did count; n_prompt_wanted_mean, n_predict_wanted_mean: as they were asked for.
        client_share: of one core, what this client took.
    """

    concurrency: int | None
    rate_per_s: float | None
    n_requests: int
    n_ok: int
    errors: Mapping[str, int]
    error_details: Mapping[str, str]
    wall_s: float
    req_per_s: float
    tok_per_s: float
    prompt_tok_per_s: float
    tok_per_s_of_rounds: tuple[float, ...]
    goodput_per_s: float | None
    ttft_s: Spread | None
    gap_s: Spread | None
    tpot_s: Spread | None
    e2e_s: Spread | None
    n_empty: int
    n_counted: int
    n_pieces_differ: int
    n_miscounted: int
    n_prompt_mean: float | None
    n_prompt_wanted_mean: float | None
    n_predict_mean: float | None
    n_predict_wanted_mean: float | None
    client_share: float
    rss_bytes: int | None = None

    @property
    def client_is_limit(self) -> bool:
        """Was this client busy enough to be what was measured?"""
        return self.n_ok > 0 and self.client_share >= SATURATED


def summarise(rounds: Sequence[Round], goal: Goal | None = None, rss_bytes: int | None = None) -> Summary:
    """The rounds of one level."""
    level: Level = rounds[0].level
    answers = [answer for r in rounds for answer in r.answers]
    ok = [answer for answer in answers if answer.ok]
    wall_s = sum(r.wall_s for r in rounds)
    counted = [answer for answer in ok if answer.n_predict is not None]
    return Summary(
        concurrency=None if level.rate_per_s else level.concurrency,
        rate_per_s=level.rate_per_s or None,
        n_requests=len(answers),
        n_ok=len(ok),
        errors=dict(Counter(answer.error for answer in answers if answer.error)),
        error_details={answer.error: _in_a_line(answer.detail) for answer in answers if answer.error},
        wall_s=wall_s,
        req_per_s=len(ok) / wall_s,
        tok_per_s=sum(answer.n_tokens for answer in ok) / wall_s,
        prompt_tok_per_s=sum(answer.n_prompt or answer.n_prompt_wanted for answer in ok) / wall_s,
        tok_per_s_of_rounds=tuple(sum(a.n_tokens for a in r.answers if a.ok) / r.wall_s for r in rounds),
        goodput_per_s=None if goal is None else sum(map(goal.holds, answers)) / wall_s,
        ttft_s=_spread(ok, lambda answer: [] if answer.ttft_s is None else [answer.ttft_s]),
        gap_s=_spread(ok, lambda answer: answer.gaps_s),
        tpot_s=_spread(ok, lambda answer: [] if answer.tpot_s is None else [answer.tpot_s]),
        e2e_s=_spread(ok, lambda answer: [answer.e2e_s]),
        n_empty=sum(not answer.pieces for answer in ok),
        n_counted=len(counted),
        n_pieces_differ=sum(answer.n_tokens != len(answer.pieces) for answer in counted),
        n_miscounted=sum(answer.n_tokens < len(answer.pieces) for answer in counted),
        n_prompt_mean=_mean([answer.n_prompt for answer in ok if answer.n_prompt is not None]),
        n_prompt_wanted_mean=_mean([answer.n_prompt_wanted for answer in ok]),
        n_predict_mean=_mean([answer.n_tokens for answer in counted]),
        n_predict_wanted_mean=_mean([answer.n_predict_wanted for answer in counted]),
        client_share=sum(r.client_cpu_s for r in rounds) / wall_s,
        rss_bytes=rss_bytes,
    )


def _mean(counts: Sequence[int]) -> float | None:
    return sum(counts) / len(counts) if counts else None


def _spread(answers: Sequence[Answer], seconds_of: Callable[[Answer], list[float]]) -> Spread | None:
    """Percentiles; whole answers are resampled, since the gaps of one are not independent of each other."""
    of_answers = [found for answer in answers if (found := seconds_of(answer))]
    if not of_answers:
        return None
    seconds = np.concatenate([np.asarray(found) for found in of_answers])
    points = np.percentile(seconds, PERCENTILES)
    names = [f"p{p}" for p in PERCENTILES]
    low, high = (dict(zip(names, ends, strict=True)) for ends in _bootstrap(of_answers))
    several = len(of_answers) > 1
    return Spread(
        mean=float(seconds.mean()),
        p50=float(points[0]), p95=float(points[1]), p99=float(points[2]),
        low=low if several else None,
        high=high if several else None,
    )  # fmt: skip


def _bootstrap(of_answers: Sequence[list[float]]) -> tuple[list[float], list[float]]:
    rng = np.random.default_rng(0)
    n = len(of_answers)
    arrays = [np.asarray(found) for found in of_answers]
    resamples = RESAMPLES if sum(map(len, arrays)) * RESAMPLES <= 50_000_000 else 50
    drawn = [
        np.percentile(np.concatenate([arrays[i] for i in rng.integers(0, n, n)]), PERCENTILES) for _ in range(resamples)
    ]
    low, high = np.percentile(np.stack(drawn), (2.5, 97.5), axis=0)
    return low.tolist(), high.tolist()


def _in_a_line(text: str) -> str:
    """What a server said, without line ends and what a terminal would obey."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
