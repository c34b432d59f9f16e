"""Does the engine's process get on? It says so now and then; one that hangs does not end, and holds everybody up.

It is silent when it is stopped, or waits for pages from a disk that does not answer. It is stuck when it speaks, has
work, and nothing of that moves: no step ends, and within one no node of the graph. A node is the least there is: one
of 512 tokens in the largest models takes a slow processor some seconds, and some more where weights come from a disk.
Where nodes aren't counted (Windows, macOS) the process's own time moves in their place; what GPUs do counts by the
step, of one physical batch.
"""

import math
from typing import Final, NamedTuple

BEAT_S: Final = 2.0  # between two signs of life
LOOK_S: Final = 1.0  # between two looks at them
SILENT_S: Final = 60.0  # after which it is replaced
STUCK_S: Final = 600  # the same, of one that speaks; the first kernels for a GPU may be compiled for minutes
TOLD_AFTER: Final = 0.25  # of these /health tells it: after 15 s, after 150 s


class Bounds(NamedTuple):
    """How long a process may be silent, and how long stuck; 0: for ever."""

    silent_s: float = SILENT_S
    stuck_s: float = STUCK_S


USUAL: Final = Bounds()
Sign = tuple[float, ...]
"""Another one whenever something has moved."""


class Vitality:
    """How long one process has been silent or stuck, in time in which its parent ran, too."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = Bounds(bounds.silent_s or math.inf, bounds.stuck_s or math.inf)
        self._silent_s = self._stuck_s = 0.0
        self._sign: Sign | None = None

    def heard(self) -> None:
        """It has said something."""
        self._silent_s = 0.0

    def beat(self, sign: Sign | None) -> None:
        """It has said how far it is; None: it has nothing to do."""
        if sign is None or sign != self._sign:
            self._stuck_s = 0.0
        self._sign = sign

    def look(self, passed_s: float) -> None:
        """Time has passed. A machine that slept, or had no time for us either, says nothing of the process."""
        passed_s = min(passed_s, 2 * LOOK_S)
        self._silent_s += passed_s
        self._stuck_s += passed_s if self._sign is not None else 0.0

    @property
    def complaint(self) -> str:
        """What is wrong, from when that is worth telling."""
        return self._found(TOLD_AFTER)

    @property
    def verdict(self) -> str:
        """Why it is to be replaced, if it is."""
        return self._found(1.0)

    def _found(self, share: float) -> str:
        silent_s, stuck_s = self._bounds
        if self._silent_s >= silent_s * share:
            why = "it is stopped, or waits for memory"
            return f"the engine's process has been silent for {self._silent_s:.0f} s: {why}"
        if self._stuck_s >= stuck_s * share:
            return f"the engine's process has been stuck for {self._stuck_s:.0f} s: nothing of a step has moved"
        return ""
