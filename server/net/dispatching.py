"""Which of its threads does the HTTP side give a request to? The one that was busy last, so that few are ever used.

A thread's first request makes its stack and its heap grow. With the longest idle one first, as waitress has it, all of
them are used sooner or later, and resident memory rises for thousands of requests.

Nor are there more threads than are needed, or soon may be again. Each has a stack, one of Python's frames, and a cache
of what malloc has freed there (glibc's tcache), which grows with every request and is given back with the thread alone.
"""

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, cast

from waitress.task import ThreadedTaskDispatcher

KEPT: Final = 16  # threads that wait for a request at most: those that become idle beside them end


class LastFirst(ThreadedTaskDispatcher):
    """waitress's dispatcher, waking the thread that waited last, and starting up to `n_most` as they are needed."""

    def __init__(self, n_most: int) -> None:
        super().__init__()
        self.queue_cv = cast("threading.Condition", _Stack(self.lock, self._retire))  # of which it uses these methods
        self._n_most, self._n_open = n_most, 0
        self.set_thread_count(1)  # here, so that whoever may have no threads is told at the start

    def add_task(self, task: Any) -> None:
        """Hand it to a thread, which keeps what it was handed last while it waits for the next one."""
        with self.lock:
            self._n_open += 1
            n_needed, n_there = min(self._n_open, self._n_most), len(self.threads) - self.stop_count
        if 0 < n_there < n_needed:
            with suppress(RuntimeError):  # the system has no more: those that are there take all in turn
                self.set_thread_count(n_needed)
        once: Any = _Once(task, self._end)
        super().add_task(once)

    def _end(self) -> None:
        with self.lock:
            self._n_open -= 1

    def _retire(self) -> None:
        """Have the thread that calls this, with the lock held, end as soon as it looks."""
        self.stop_count += 1

    def start_new_thread(self, target: Callable[[int], object], thread_no: int) -> None:
        """Start one. Raises RuntimeError: the system has no more."""
        try:
            super().start_new_thread(target, thread_no)
        except RuntimeError:
            self.threads.discard(thread_no)  # where waitress has counted it already
            raise


class _Once:
    """A task that is let go of with its end: a connection that has closed, with all its buffers."""

    __slots__ = ("_ended", "_task")

    def __init__(self, task: Any, ended: Callable[[], None]) -> None:
        self._task, self._ended = task, ended

    def service(self) -> None:
        task, self._task = self._task, None
        try:
            task.service()
        finally:
            self._ended()

    def cancel(self) -> None:
        self._task.cancel()


class _Stack:
    """A condition whose last waiter is woken first. All is called with the lock held, as a condition's methods are.

    `retire`: what is called in place of waiting where enough others wait.
    """

    def __init__(self, lock: threading.Lock, retire: Callable[[], None]) -> None:
        self._lock, self._retire = lock, retire
        self._waiting: list[threading.Lock] = []

    def wait(self) -> None:
        if len(self._waiting) >= KEPT:
            self._retire()
            return
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
