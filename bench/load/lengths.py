"""How long are prompts and answers? A distribution, from the words of a command line."""

import math
import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Lengths:
    """Whole numbers from `low` to `high`: all alike where these are equal, even between them, or lognormal.

    `sigma` is that of the logarithm, around the logarithm of `median`; what is drawn outside counts as the bound.
    """

    low: int
    high: int
    median: int = 0
    sigma: float = 0.0

    def draw(self, rng: random.Random) -> int:
        """One length."""
        if self.sigma:
            drawn = round(math.exp(rng.gauss(math.log(self.median), self.sigma)))
            return min(max(drawn, self.low), self.high)
        return rng.randint(self.low, self.high)

    def __str__(self) -> str:
        if self.sigma:
            return f"lognormal, median {self.median}, sigma {self.sigma:g}"
        return str(self.low) if self.low == self.high else f"{self.low} to {self.high}"


def lengths(text: str) -> Lengths:
    """`128`, `64..512`, or `lognormal:128:0.5` (median and sigma, at most 16 times the median).

    Raises:
        ValueError: it is none of these.
    """
    try:
        if text.startswith("lognormal:"):
            _, median, sigma = text.split(":")
            if int(median) < 1 or not 0 < float(sigma) <= 4:
                raise ValueError
            return Lengths(1, 16 * int(median), int(median), float(sigma))
        low, _, high = text.partition("..")
        found = Lengths(int(low), int(high or low))
    except ValueError:
        found = Lengths(0, 0)
    if not 1 <= found.low <= found.high:
        raise ValueError(f"{text!r}: expected a length (128), a range (64..512) or lognormal:MEDIAN:SIGMA")
    return found
