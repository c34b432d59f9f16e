"""Which of its threads does the HTTP side give a request to? The one that was busy last, so that few are ever used.

A thread's first request makes its stack and its heap grow. With the longest idle one first, as waitress has it, all of
them are used sooner or later, and resident memory rises for thousands of requests.
"""

import threading
from typing import cast

from waitress.task import ThreadedTaskDispatcher


class LastFirst(ThreadedTaskDispatcher):
    """waitress's dispatcher, waking the thread that waited last."""

    def __init__(self) -> None:
        super().__init__()
        self.queue_cv = cast("threading.Condition", _Stack(self.lock))  # of which it uses these methods


class _Stack:
    """A condition whose last waiter is woken first. All is called with the lock held, as a condition's methods are."""

    def __init__(self, lock: threading.Lock) -> None:
        self._lock = lock
        self._waiting: list[threading.Lock] = []

    def wait(self) -> None:
        turn = threading.Lock()
        turn.acquire()
        self._waiting.append(turn)
        self._lock.release()
        try:
            turn.acquire()
        finally:
            self._lock.acquire()

    def notify(self) -> None:
        if self._waiting:
            self._waiting.pop().release()

    def notify_all(self) -> None:
        while self._waiting:
            self.notify()
