"""Which token comes next? The likeliest, or one drawn by chance, the same for the same seed.

Source: llama.cpp 0c1e570 src/llama-sampler.cpp; common/sampling.cpp, common_sampler_init (the order of the steps).
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ggufphys.errors import GGUFPhysError
from refengine.arrays import Array
from refengine.blocks import F32


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How to choose; names are llama-server's. The defaults are greedy and change no logit.

    `temperature` 0 is greedy, `top_k` 0 leaves all tokens in, `seed` None is another one each time.

    Raises:
        ValueError: a number outside of its range.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int | None = 0
    repeat_penalty: float = 1.0
    repeat_last_n: int = 64  # tokens that the three penalties look back on; -1: all
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    ignore_eos: bool = False

    def __post_init__(self) -> None:
        ranges = {
            "temperature": (self.temperature >= 0, "0 or more"),
            "top_k": (self.top_k >= 0, "0 or more"),
            "top_p": (0 <= self.top_p <= 1, "0 to 1"),
            "min_p": (0 <= self.min_p <= 1, "0 to 1"),
            "repeat_penalty": (self.repeat_penalty > 0, "more than 0"),
            "repeat_last_n": (self.repeat_last_n >= -1, "-1 or more"),
        }
        for name, (is_right, expected) in ranges.items():
            if not is_right:
                raise ValueError(f"{name} is {getattr(self, name)}, expected {expected}")

    @property
    def penalises(self) -> bool:
        """Whether tokens that were there before count less."""
        strengths = (self.repeat_penalty, self.frequency_penalty, self.presence_penalty)
        return strengths != (1, 0, 0) and self.repeat_last_n != 0


class Sampler:
    """Draws tokens, one after the other, from rows of logits; `banned` are never drawn."""

    def __init__(self, sampling: Sampling | None = None, banned: Iterable[int] = ()) -> None:
        self.sampling = sampling or Sampling()
        self._banned = np.array(tuple(banned), np.int64)
        seed = self.sampling.seed
        self._rng = np.random.default_rng(None if seed is None else seed % 2**64)  # numpy takes no negative ones
        last_n = self.sampling.repeat_last_n
        self._seen = deque[int](maxlen=None if last_n < 0 else last_n)

    def remember(self, tokens: Sequence[int]) -> None:
        """Let the penalties see tokens that were not drawn: the prompt."""
        if self.sampling.penalises:
            self._seen.extend(tokens)

    def choose(self, logits: F32) -> int:
        """A token for one row of logits `(n_vocab,)`.

        Raises:
            GGUFPhysError: the logits are no numbers.
        """
        if not np.isfinite(logits.max()):
            raise GGUFPhysError("the model's logits are not numbers (NaN or infinite): a broken or unsuited model file")
        row = self._adjusted(logits)
        if self.sampling.temperature == 0:
            token = int(row.argmax())
        else:
            candidates, weights = probabilities(row, self.sampling)
            token = int(self._rng.choice(candidates, p=weights))
        self.remember((token,))
        return token

    def _adjusted(self, logits: F32) -> F32:
        """The logits with bias and penalties; the same array where there are none."""
        s = self.sampling
        biases = [(token, value) for token, value in s.logit_bias if 0 <= token < len(logits)]
        if not biases and not len(self._banned) and not self._seen:
            return logits
        row = logits.copy()
        for token, value in biases:
            row[token] += np.float32(value)
        row[self._banned] = -np.inf
        if self._seen:
            tokens, counts = np.unique(np.array(self._seen), return_counts=True)
            was = row[tokens]
            scaled = np.where(was <= 0, was * np.float32(s.repeat_penalty), was / np.float32(s.repeat_penalty))
            row[tokens] = scaled - counts * np.float32(s.frequency_penalty) - np.float32(s.presence_penalty)
        return row


def probabilities(logits: F32, sampling: Sampling) -> tuple[Array, Array]:
    """The tokens that are left and how likely each is, likeliest first: top_k, top_p, min_p, then the temperature."""
    order = _likeliest(logits, sampling.top_k)
    kept = logits[order].astype(np.float64)
    weights = np.exp(kept - kept[0])
    shares = weights / weights.sum()
    left = weights >= sampling.min_p
    if sampling.top_p < 1:
        left &= np.cumsum(shares) - shares < sampling.top_p
    left[0] = True
    order, kept = order[left], kept[left]
    weights = np.exp((kept - kept[0]) / sampling.temperature)
    return order, weights / weights.sum()


def _likeliest(logits: F32, top_k: int) -> Array:
    """Tokens by their logits, the greatest first; sorting a whole vocabulary takes ten times as long as finding 40."""
    if not 0 < top_k < len(logits):
        return np.argsort(-logits, kind="stable")
    found = np.argpartition(-logits, top_k - 1)[:top_k]
    found.sort()
    return found[np.argsort(-logits[found], kind="stable")]
