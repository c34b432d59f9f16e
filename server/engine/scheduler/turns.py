"""Whose turn is it, where not all can be in one step? A batch is computed with the same adapters throughout.

Who shares them goes together, for some steps, since llama.cpp lays its buffers out anew at each change; then it is the
turn of those who have waited longest.
"""

from collections.abc import Sequence as Many
from typing import Final

from server.engine.scheduler.sequence import Sequence

STEPS: Final = 8  # of one turn, while others wait


class Turns:
    """Which of the sequences under way are in the next step. Not for several threads."""

    def __init__(self) -> None:
        self._current: object = ()
        self._n_steps = 0
        self._served: dict[object, int] = {}  # when each of those who wait had its last step, or came

    def next(self, active: Many[Sequence], now: int) -> None:
        """Choose for a step."""
        if len(self._served) < 2 and all(sequence.adapters == self._current for sequence in active):
            self.go_on()
            return
        sets = dict.fromkeys(sequence.adapters for sequence in active)
        self._served = {each: self._served.get(each, now) for each in sets}
        others = [each for each in sets if each != self._current]
        self._n_steps += 1
        if others and (self._current not in sets or self._n_steps > STEPS):
            self._current, self._n_steps = min(others, key=self._served.__getitem__), 1
        self._served[self._current] = now

    def go_on(self) -> None:
        """Count a step of the only ones there are: who comes then need not wait for a turn that has been long."""
        self._n_steps += 1

    def of(self, active: list[Sequence]) -> list[Sequence]:
        """The answers whose turn it is."""
        if len(self._served) < 2:
            return active
        return [sequence for sequence in active if sequence.adapters == self._current]
