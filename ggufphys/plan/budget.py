"""Does a latency budget hold, and for how many users at once? `200 in, 100 out, p95 1.5 s`.

Users ask all the time, each its next question when it has its answer, and their tokens share batches. Until one answer
is there, every user's prompt is read once, and its tokens come in steps that hold one of each user's:

    latency(users) = users * prompt_s + n_out * step_s(users, n_in + n_out / 2)

In that order nobody is served before another, which is the worst for a percentile near 100 and what a budget asks.
"""

import re
from collections.abc import Callable
from typing import Final

from ggufphys.flags.numbers import count
from ggufphys.frozen import dataclass
from ggufphys.speed.predict import Figure, Speeds

MAX_USERS: Final = 64
_TOKENS: Final = r"\s*([0-9][0-9,]*k?)\s*(?:tokens\s+)?"
_FORM: Final = re.compile(
    rf"{_TOKENS}in\s*,?{_TOKENS}out\s*,?\s*p(\d{{1,2}}(?:\.\d+)?)\s*([\d.]+)\s*(ms|s)\s*", re.IGNORECASE
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """A request's tokens, read and generated, and the seconds that a percentile of requests may take."""

    n_in: int
    n_out: int
    percentile: float
    limit_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetVerdict:
    """Whether it holds for one user, and for how many; `certain_users` are those for whom all of the range does."""

    budget: Budget
    latency: Figure
    users: int
    certain_users: int

    @property
    def holds(self) -> bool:
        """Whether one user at least is served within the budget."""
        return self.users > 0


def parse_budget(text: str) -> Budget:
    """`200 in, 100 out, p95 1.5 s`; `2k tokens in` is 2048, as with every other count of tokens.

    Raises:
        ValueError: another form, or no tokens, or no time.
    """
    match = _FORM.fullmatch(text)
    if match is None:
        raise ValueError(f"--budget {text!r}: expected a form like '200 in, 100 out, p95 1.5 s'")
    n_in, n_out = (count(match[i].replace(",", "")) for i in (1, 2))
    try:
        limit_s = float(match[4]) / (1000 if match[5].lower() == "ms" else 1)
    except ValueError:
        raise ValueError(f"--budget {text!r}: {match[4]!r} is no number of seconds") from None
    if not (n_in and n_out and limit_s):
        raise ValueError(f"--budget {text!r}: expected at least a token in, a token out, and some time")
    return Budget(n_in=n_in, n_out=n_out, percentile=float(match[3]), limit_s=limit_s)


def judge(speeds: Speeds, budget: Budget) -> BudgetVerdict:
    """How many users the budget holds for, as far as the context has room for them.

    Raises:
        ValueError: the request alone does not fit into the context, or the model generates nothing.
    """
    if not speeds.has_cache:
        raise ValueError("--budget: the model generates nothing")
    needed, room = budget.n_in + budget.n_out, speeds.context.n_ctx_seq
    if needed > room:
        raise ValueError(f"--budget: {needed} tokens do not fit into the {room} cells of a sequence: raise --ctx-size")
    most = min(MAX_USERS, room // needed if speeds.context.kv_unified else MAX_USERS)
    alone = latency(speeds, budget, 1)
    return BudgetVerdict(
        budget=budget,
        latency=alone,
        users=_most(lambda n: latency(speeds, budget, n).value <= budget.limit_s, most),
        certain_users=_most(lambda n: latency(speeds, budget, n).high <= budget.limit_s, most),
    )


def latency(speeds: Speeds, budget: Budget, n_users: int) -> Figure:
    """Seconds from a request to its last token, with so many users."""
    prompt = speeds.prefill(budget.n_in).seconds.times(n_users)
    steps = speeds.decode(n_users, budget.n_in + budget.n_out // 2).seconds.times(budget.n_out)
    return Figure(value=prompt.value + steps.value, low=prompt.low + steps.low, high=prompt.high + steps.high)


def _most(holds: Callable[[int], bool], most: int) -> int:
    """The largest number that holds, where larger ones hold ever less; 0 for none."""
    low, high = 0, most + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
