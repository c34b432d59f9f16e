"""Which token comes next? The likeliest, or one drawn by chance, the same for the same seed."""

from dataclasses import dataclass

import numpy as np

from refengine.arrays import Array
from refengine.blocks import F32


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How to choose. A temperature of 0 is greedy; `top_k` 0 and `top_p` 1 leave all tokens in.

    Raises:
        ValueError: a number outside of its range.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.temperature < 0 or self.top_k < 0 or not 0 < self.top_p <= 1:
            raise ValueError(
                f"temperature {self.temperature}, top_k {self.top_k}, top_p {self.top_p}: "
                "expected 0 or more, 0 or more, and above 0 up to 1"
            )


class Sampler:
    """Draws tokens, one after the other, from rows of logits."""

    def __init__(self, sampling: Sampling | None = None) -> None:
        self.sampling = sampling or Sampling()
        self._rng = np.random.default_rng(self.sampling.seed)

    def choose(self, logits: F32) -> int:
        """A token for one row of logits `(n_vocab,)`."""
        if self.sampling.temperature == 0:
            return int(logits.argmax())
        candidates, weights = probabilities(logits, self.sampling)
        return int(self._rng.choice(candidates, p=weights))


def probabilities(logits: F32, sampling: Sampling) -> tuple[Array, Array]:
    """The tokens that are left and how likely each is, likeliest first: top_k, then top_p, then the temperature."""
    order = np.argsort(-logits, kind="stable")[: sampling.top_k or None]
    kept = logits[order].astype(np.float64)
    weights = np.exp(kept - kept[0])
    before = np.cumsum(weights / weights.sum()) - weights / weights.sum()
    order, kept = order[before < sampling.top_p], kept[before < sampling.top_p]
    weights = np.exp((kept - kept[0]) / sampling.temperature)
    return order, weights / weights.sum()
