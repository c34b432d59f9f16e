"""The HTTP side's threads: the last that was busy is the next, none is lost, and all end."""

import threading
import time
from typing import Any

from server.dispatching import LastFirst

N_THREADS = 12
TIMEOUT_S = 20


class Task:
    """Notes which thread serves it; waits for `release`, if there is one."""

    def __init__(self, seen: list[str], release: threading.Event | None = None) -> None:
        self.seen, self.release, self.done = seen, release, threading.Event()

    def service(self) -> None:
        self.seen.append(threading.current_thread().name)
        if self.release is not None:
            assert self.release.wait(TIMEOUT_S)
        self.done.set()

    def cancel(self) -> None:
        self.done.set()


def idle(dispatcher: LastFirst) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while dispatcher.active_count and time.monotonic() < deadline:
        time.sleep(0.001)
    assert not dispatcher.active_count


def test_one_thread_after_another() -> None:
    """One request after another is served by one thread; as many at once as there are threads by all of them."""
    dispatcher = LastFirst()
    dispatcher.set_thread_count(N_THREADS)
    try:
        idle(dispatcher)
        alone: list[str] = []
        for _ in range(40):
            task: Any = Task(alone)
            dispatcher.add_task(task)
            assert task.done.wait(TIMEOUT_S)
            idle(dispatcher)
        assert len(set(alone)) == 1
        together: list[str] = []
        release = threading.Event()
        tasks: list[Any] = [Task(together, release) for _ in range(N_THREADS + 5)]  # five wait for a thread
        for each in tasks:
            dispatcher.add_task(each)
        while len(together) < N_THREADS:
            time.sleep(0.001)
        release.set()
        assert all(each.done.wait(TIMEOUT_S) for each in tasks)
        assert len(set(together[:N_THREADS])) == N_THREADS
    finally:
        dispatcher.shutdown(timeout=TIMEOUT_S)
    assert not dispatcher.threads
