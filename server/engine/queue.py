"""Who is next? A bounded first-in-first-out queue of generations, with a guess at how long a place in it takes."""

import threading
import time
from collections import deque
from typing import Final

from server.engine.errors import NotReadyError, QueueFullError
from server.engine.protocol import Generation

REMEMBERED: Final = 16  # the guess is the mean of this many recent generations


class GenerationQueue:
    """Generations that wait. One that its reader has cancelled gives its place up at once."""

    def __init__(self, max_waiting: int) -> None:
        self.max_waiting = max_waiting
        self._waiting: deque[Generation] = deque()
        self._changed = threading.Condition()
        self._durations_s: deque[float] = deque(maxlen=REMEMBERED)
        self._closed = False

    def put(self, generation: Generation) -> None:
        """Append a generation.

        Raises:
            QueueFullError: `max_waiting` wait already.
            NotReadyError: the queue is closed.
        """
        with self._changed:
            if self._closed:
                raise NotReadyError("the engine is shutting down")
            self._drop_cancelled()
            if len(self._waiting) >= self.max_waiting:
                raise QueueFullError(
                    f"{len(self._waiting)} requests wait already, which is as many as may", retry_after_s=self._mean_s()
                )
            self._waiting.append(generation)
            self._changed.notify()

    def get(self) -> Generation | None:
        """Take the first generation, waiting for one; None once the queue is closed."""
        with self._changed:
            while not self._closed:
                self._drop_cancelled()
                if self._waiting:
                    return self._waiting.popleft()
                self._changed.wait()
            return None

    def close(self) -> tuple[Generation, ...]:
        """Take no more, and give back those that still wait."""
        with self._changed:
            self._closed = True
            left = tuple(self._waiting)
            self._waiting.clear()
            self._changed.notify_all()
            return left

    def completed(self, started_at: float) -> None:
        """Note that the generation taken at `started_at` (time.perf_counter) has ended."""
        with self._changed:
            self._durations_s.append(time.perf_counter() - started_at)

    def _drop_cancelled(self) -> None:
        self._waiting = deque(generation for generation in self._waiting if not generation.cancelled)

    def _mean_s(self) -> float:
        return sum(self._durations_s) / len(self._durations_s) if self._durations_s else 1.0
