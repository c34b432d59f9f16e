"""What was found for an experiment, what limits it, and why: sentences by what the measurement shows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

Limit = Literal["", "bandwidth", "compute", "overhead", "paging", "queueing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A quantity's value; None where it cannot be found here, and `explanation` says why not."""

    value: float | None
    explanation: str
    limit: Limit = ""
    interval: tuple[float, float] | None = None


LIMITS: Final[Mapping[Limit, str]] = {
    "bandwidth": "What requests share is most of the time: weights are read once for all (of a model that caches hold, "
    "it is a step's fixed cost): bandwidth.",
    "compute": "Each token is computed by itself, and that is most of the time: compute.",
    "overhead": "Most of the time goes to neither weights nor arithmetic: overhead (dispatch, barriers, scheduling).",
    "paging": "Pages were read from the disk meanwhile: paging.",
    "queueing": "Requests wait for each other longer than they are worked on: queueing.",
    "": "",
}
"""What a limit means, said behind the figures that show it."""


def limited(figures: str, limit: Limit) -> str:
    """Figures, and what they show."""
    return f"{figures} {LIMITS[limit]}".strip()


def spread(values: Sequence[float], form: str = ".2f") -> str:
    """The least and the most: `1.24 to 1.51`."""
    return f"{min(values):{form}} to {max(values):{form}}"
