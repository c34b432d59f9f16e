"""What may come next, without a model: what followed the last tokens when they last stood in the text.

Answers repeat what is there: code that is edited, a text that is summed up, lists. A guess costs a row of logits in a
step that is taken anyway, and as many as are right are steps saved. The method is llama-server's ngram-simple, with its
lengths; how much is guessed goes with how good the guesses were.

Source: llama.cpp 0c1e570 common/ngram-map.h, common_ngram_simple_config; common/common.h,
common_params_speculative_ngram_map (defaults).
"""

from array import array
from dataclasses import dataclass
from typing import Final

FIRST: Final = 4  # tokens that are guessed while nothing is known of an answer
LEAST: Final = 2  # and after a wrong guess: so many rows cost little

NOT_ASKED: Final = "it was started without --spec-type ngram-simple"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookups:
    """How guesses are made: of `n_match` tokens alike, seen `min_hits` times before, come `n_max` at most."""

    n_match: int = 12
    n_max: int = 48
    min_hits: int = 1


class Lookup:
    """The guesses of one answer. `n_min`: fewer are not worth a try."""

    def __init__(self, lookups: Lookups, *, n_max: int, n_min: int = 0) -> None:
        self._lookups = lookups
        self._n_max = min(n_max, lookups.n_max)
        self._n_min = n_min
        self._limit = min(FIRST, self._n_max)

    def guess(self, tokens: "array[int]", n_room: int) -> tuple[int, ...]:
        """Tokens that may follow, at most `n_room`; none where nothing is known."""
        n_match, n = self._lookups.n_match, min(max(self._limit, self._n_min), self._n_max, n_room)
        if n < max(self._n_min, 1) or len(tokens) <= n_match:
            return ()
        found = self._place(tokens.tobytes(), tokens.itemsize)
        guess = () if found is None else tuple(tokens[found : found + n])
        return guess if len(guess) >= self._n_min else ()

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

    def learn(self, n_guessed: int, n_right: int) -> None:
        """Note how good a guess was: the next is longer, or shorter."""
        if n_right == n_guessed:
            self._limit = min(max(2 * n_guessed, self._limit), self._n_max)
        else:
            self._limit = min(max(n_right + 1, LEAST), self._n_max)
