"""What may come next, without a model: what followed the last tokens when they last stood in the text.

Answers repeat what is there: code that is edited, a text that is summed up, lists. The method is llama-server's
ngram-simple, with its lengths; how much is guessed goes with how good the guesses were.

Source: llama.cpp 0c1e570 common/ngram-map.h, common_ngram_simple_config; common/common.h,
common_params_speculative_ngram_map (defaults).
"""

from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from server.engine.scheduler.guesses import Guesses
from server.engine.scheduler.sequence import Sequence

FIRST: Final = 4  # tokens that are guessed while nothing is known of an answer
LEAST: Final = 2  # and after a wrong guess: so many rows cost little


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookups:
    """How guesses are made: of `n_match` tokens alike, seen `min_hits` times before, come `n_max` at most."""

    n_match: int = 12
    n_max: int = 48
    min_hits: int = 1


class Lookup:
    """Guesses by looking back; implements `Drafter`."""

    n_min = 0

    def __init__(self, lookups: Lookups) -> None:
        self._lookups = lookups
        self.n_max = lookups.n_max
        self._limits: dict[Sequence, int] = {}  # of answers of which something is known

    def guess(self, asked: Mapping[Sequence, int], n_room: int) -> Guesses:
        """What followed each one's last tokens."""
        found: Guesses = {}
        for sequence, n_max in asked.items():
            limit = max(self._limits.get(sequence, FIRST), sequence.wish.n_min or 0 if sequence.wish else 0)
            n = min(limit, n_max, n_room)
            if n > 0 and (guess := self._following(sequence.tokens, n)):
                found[sequence] = guess
                n_room -= len(guess)
        return found

    def _following(self, tokens: "array[int]", n: int) -> tuple[int, ...]:
        if len(tokens) <= self._lookups.n_match:
            return ()
        found = self._place(tokens.tobytes(), tokens.itemsize)
        return () if found is None else tuple(tokens[found : found + n])

    def _place(self, text: bytes, size: int) -> int | None:
        """Where that began which followed the last tokens before."""
        pattern = text[-self._lookups.n_match * size :]
        found, hits, end = None, 0, len(text) - size
        while hits < self._lookups.min_hits:
            at = text.rfind(pattern, 0, end)
            if at < 0:
                return None
            end = at + len(pattern) - 1
            if at % size == 0:  # a token's beginning, not its middle
                hits += 1
                found = at // size + self._lookups.n_match if found is None else found
        return found

    def learn(self, sequence: Sequence, n_guessed: int, n_right: int) -> None:
        """The next guess is longer, or shorter."""
        if n_right == n_guessed:
            self._limits[sequence] = max(2 * n_guessed, self._limits.get(sequence, FIRST))
        else:
            self._limits[sequence] = max(n_right + 1, LEAST)

    def forget(self, sequence: Sequence) -> None:
        """It is over."""
        self._limits.pop(sequence, None)
