"""May one more come? As many answers may be asked for as can run and wait; with a guess at how long a place takes."""

import threading
import time
from collections import deque
from typing import Final, Protocol

from server.engine.errors import NotReadyError, QueueFullError

REMEMBERED: Final = 16  # the guess is from this many recent generations


class Guest(Protocol):
    """A request: for `n` answers, or for vectors."""

    submitted_at: float

    @property
    def n(self) -> int:
        """How many places the request takes."""
        ...


class Places:
    """Requests from submission to their end. One that its reader has cancelled gives its place up at once."""

    def __init__(self, max_waiting: int) -> None:
        self.max_waiting = max_waiting
        self.n_slots = 1
        self._lock = threading.Lock()
        self._taken: dict[Guest, int] = {}
        self._durations_s: deque[float] = deque(maxlen=REMEMBERED)
        self._closed = False

    def take(self, guest: Guest) -> None:
        """Take a place for each of a request's answers. One request is never too much for an empty house.

        Raises:
            QueueFullError: all are taken.
            NotReadyError: no more are given.
        """
        with self._lock:
            if self._closed:
                raise NotReadyError("the engine is shutting down")
            n_taken, n = sum(self._taken.values()), guest.n
            if self._taken and n_taken + n > self.n_slots + self.max_waiting:
                n_waiting = max(n_taken - self.n_slots, 0)
                raise QueueFullError(
                    f"{n_waiting} requests wait already, which is as many as may", retry_after_s=self._wait_s()
                )
            self._taken[guest] = n

    def leave(self, guest: Guest, *, completed: bool = True) -> None:
        """Give a place up: the request is over, or nobody waits for it."""
        with self._lock:
            if self._taken.pop(guest, None) is not None and completed:
                self._durations_s.append(time.perf_counter() - guest.submitted_at)

    def close(self) -> None:
        """Give no more."""
        with self._lock:
            self._closed = True

    @property
    def n_taken(self) -> int:
        """Answers asked for that are not over."""
        with self._lock:
            return sum(self._taken.values())

    def _wait_s(self) -> float:
        """A place is free when the next of those that run is over: on average a request's time by their number."""
        if not self._durations_s:
            return 1.0
        return sum(self._durations_s) / len(self._durations_s) / max(len(self._taken), 1)
