"""Does guessing pay? What a token has taken with guesses and without, with so many answers side by side.

A guess costs a row of logits, and a draft model's its passes: little where a step mostly reads weights, as on a GPU or
for one answer, and much where it mostly computes, as for many answers on a processor. And answers differ in how much of
them can be guessed. So both ways are tried now and then, and the faster one is taken: by what it took here, of late.
"""

from collections import deque
from statistics import median
from typing import Final

FIRST: Final = (8, 4)  # steps with guesses at first, and then without
TRIAL: Final = 3  # steps of a trial of the other way; the first may have a draft's catching up in it
EVERY: Final = (48, 768)  # steps between trials: at first, and at most after many that changed nothing
KEPT: Final = 12  # steps of a way that are remembered


class Worth:
    """Whether to guess in a step, from what steps took. Knows no clock."""

    def __init__(self) -> None:
        self._by_number: dict[int, _Ways] = {}

    def wants(self, n_answers: int) -> bool:
        """Whether the next step of so many answers is to have guesses."""
        return self._ways(n_answers).way

    def learn(self, n_answers: int, *, guessed: bool, n_said: int, seconds: float) -> None:
        """Note a step of answers alone: tokens that came of it, and what it took, guesses and all."""
        self._ways(n_answers).learn(guessed=guessed, n_said=n_said, seconds=seconds)

    def _ways(self, n_answers: int) -> "_Ways":
        return self._by_number.setdefault(n_answers, _Ways())


class _Ways:
    """With guesses and without, for one number of answers. Steps that say nothing change nothing."""

    def __init__(self) -> None:
        self.way = True  # of the next step
        self._steps: dict[bool, deque[tuple[int, float]]] = {way: deque(maxlen=KEPT) for way in (True, False)}
        self._plan = [(True, FIRST[0]), (False, FIRST[1])]  # ways, and steps of each
        self._n_left = FIRST[0]
        self._pays: bool | None = None  # as the last trials had it
        self._every = EVERY[0]

    def learn(self, *, guessed: bool, n_said: int, seconds: float) -> None:
        """Note a step, and go on to the next way when there have been enough."""
        if guessed != self.way or not n_said:
            return
        self._steps[guessed].append((n_said, seconds))
        self._n_left -= 1
        if self._n_left and not self._is_doubtful():
            return
        del self._plan[0]
        if not self._plan:
            pays = self._token_s(True) <= self._token_s(False)
            self._every = min(2 * self._every, EVERY[1]) if pays == self._pays else EVERY[0]
            self._pays = pays
            self._plan = [(pays, self._every), (not pays, TRIAL)]
        self.way, self._n_left = self._plan[0]
        if len(self._plan) == 1:
            self._steps[self.way].clear()  # what it took long ago says little

    def _is_doubtful(self) -> bool:
        """Whether the way that was the faster one now takes longer than the other did."""
        n_done = self._every - self._n_left
        return (
            self._pays == self.way
            and len(self._plan) == 2
            and n_done >= KEPT
            and self._token_s(self.way) > self._token_s(not self.way)
        )

    def _token_s(self, guessed: bool) -> float:
        """Seconds a token; a step now and then that was disturbed counts no more than another."""
        steps = self._steps[guessed]
        return median(seconds for _, seconds in steps) * len(steps) / sum(n for n, _ in steps)
