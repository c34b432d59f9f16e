"""What must an answer keep to count as good?"""

from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.load.client import Answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """Limits that an answer must keep to count as good, seconds."""

    ttft_s: float = float("inf")
    tpot_s: float = float("inf")
    e2e_s: float = float("inf")

    def holds(self, answer: "Answer") -> bool:
        """Did this answer keep them? One without content did not; one of a single token has no time per token."""
        return (
            answer.ok
            and answer.ttft_s is not None
            and answer.ttft_s <= self.ttft_s
            and (answer.tpot_s or 0.0) <= self.tpot_s
            and answer.e2e_s <= self.e2e_s
        )

    def to_json(self) -> dict[str, float]:
        """The limits that there are."""
        return {name: limit for name in ("ttft_s", "tpot_s", "e2e_s") if isfinite(limit := getattr(self, name))}
