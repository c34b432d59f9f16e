"""What may come next? A step's answers are asked about together, once; who knows of one first has the say.

A guess costs a row of logits in a step that is taken anyway, and as many as are right are steps saved.

Source: llama.cpp 0c1e570 common/speculative.cpp, common_speculative_draft (first come, first served).
"""

from collections.abc import Mapping
from collections.abc import Sequence as Many
from typing import Protocol

from server.engine.scheduler.sequence import Sequence
from server.engine.scheduler.worth import Worth

Guesses = dict[Sequence, tuple[int, ...]]


class Drafter(Protocol):
    """Guesses what follows answers' tokens. Not for several threads."""

    @property
    def n_max(self) -> int:
        """Tokens of a guess at most."""
        ...

    @property
    def n_min(self) -> int:
        """Fewer are not worth a try, unless the request says otherwise."""
        ...

    def guess(self, asked: Mapping[Sequence, int], n_room: int) -> Guesses:
        """What may follow each, so many tokens at most, `n_room` of all; left out where nothing is known."""
        ...

    def learn(self, sequence: Sequence, n_guessed: int, n_right: int) -> None:
        """Note how good a guess was."""
        ...

    def forget(self, sequence: Sequence) -> None:
        """It is over."""
        ...


class Guesser:
    """The drafters there are, the first before the others; with `worth` only while it pays."""

    def __init__(self, drafters: Many[Drafter] = (), worth: Worth | None = None) -> None:
        self._drafters = drafters
        self._worth = worth
        self._last: dict[Sequence, Drafter] = {}  # whose guess is being checked
        self._n_answers = 0  # that may be guessed, in the last step
        self._is_asked = False

    def __bool__(self) -> bool:
        return bool(self._drafters)

    def guess(self, answers: Many[Sequence], n_room: int) -> Guesses:
        """What may follow each of the answers that want it; all guesses together are `n_room` tokens at most."""
        found: Guesses = {}
        answers = [sequence for sequence in answers if sequence.wish is not None and sequence.n_generated]
        self._n_answers = len(answers)
        self._is_asked = bool(answers) and (self._worth is None or self._worth.wants(len(answers)))
        for drafter in self._drafters if self._is_asked else ():
            limits = {sequence: _limit(sequence, drafter) for sequence in answers if sequence not in found}
            asked = {sequence: n for sequence, n in limits.items() if n >= max(1, _least(sequence, drafter))}
            if not asked or n_room < 1:
                continue
            for sequence, guess in drafter.guess(asked, n_room).items():
                if guess and len(guess) >= _least(sequence, drafter):
                    found[sequence], self._last[sequence] = guess, drafter
                    n_room -= len(guess)
        return found

    def took(self, n_said: int, seconds: float, *, guessed: bool) -> None:
        """Note what the last step took, which had answers alone in it. Where a draft only read, it says nothing."""
        if self._worth is not None and self._n_answers and guessed == self._is_asked:
            self._worth.learn(self._n_answers, guessed=guessed, n_said=n_said, seconds=seconds)

    def learn(self, sequence: Sequence, n_guessed: int, n_right: int) -> None:
        """Tell whose guess it was how good it was."""
        self._last[sequence].learn(sequence, n_guessed, n_right)

    def forget(self, sequence: Sequence) -> None:
        """A sequence is over."""
        self._last.pop(sequence, None)
        for drafter in self._drafters:
            drafter.forget(sequence)


def _limit(sequence: Sequence, drafter: Drafter) -> int:
    """Tokens that may be guessed: the token behind the last guess is one more."""
    wish = sequence.wish
    n_max = drafter.n_max if wish is None or wish.n_max is None else min(wish.n_max, drafter.n_max)
    return min(n_max, sequence.n_max - len(sequence.tokens) - 1)


def _least(sequence: Sequence, drafter: Drafter) -> int:
    wish = sequence.wish
    return drafter.n_min if wish is None or wish.n_min is None else wish.n_min
