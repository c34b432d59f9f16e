"""The HTTP side's threads: the last that was busy is the next, none is lost, and all end."""

import threading
import time
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from server.net.dispatching import KEPT, LastFirst

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
    dispatcher = LastFirst(N_THREADS)
    try:
        idle(dispatcher)
        assert len(dispatcher.threads) == 1
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


@pytest.fixture
def dispatcher() -> Iterator[LastFirst]:
    made = LastFirst(3 * KEPT)
    yield made
    made.shutdown(timeout=TIMEOUT_S)
    assert not made.threads


def crowd(dispatcher: LastFirst, n: int) -> int:
    """So many tasks at once; the threads that there were for them."""
    release, seen = threading.Event(), list[str]()
    tasks: list[Any] = [Task(seen, release) for _ in range(n)]
    for each in tasks:
        dispatcher.add_task(each)
    while len(seen) < n:
        time.sleep(0.001)
    n_there = len(dispatcher.threads)
    release.set()
    assert all(each.done.wait(TIMEOUT_S) for each in tasks)
    idle(dispatcher)
    return n_there


def test_no_more_threads_than_are_needed(dispatcher: LastFirst) -> None:
    """As many start as there are tasks at a time, and of those that are idle some stay."""
    for n in (1, 5, KEPT, 2 * KEPT, 3 * KEPT, 3):
        n_before = len(dispatcher.threads)
        assert crowd(dispatcher, n) == max(n, n_before)
        assert len(dispatcher.threads) == min(max(n, n_before), KEPT)


def test_what_was_served_is_let_go(dispatcher: LastFirst) -> None:
    """A thread that waits for its next task does not keep the last one."""
    task: Any = Task([])
    dispatcher.add_task(task)
    assert task.done.wait(TIMEOUT_S)
    idle(dispatcher)
    left = weakref.ref(task)
    del task
    assert left() is None


def test_a_system_without_more_threads(dispatcher: LastFirst, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no more can be started, those that are there serve all, one after another."""

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    idle(dispatcher)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    tasks: list[Any] = [Task([]) for _ in range(10)]
    for each in tasks:
        dispatcher.add_task(each)
    assert all(each.done.wait(TIMEOUT_S) for each in tasks)
    assert len(dispatcher.threads) == 1
    with pytest.raises(RuntimeError):
        LastFirst(4)


def test_many_short_ones(dispatcher: LastFirst) -> None:
    """None is lost while threads come and go."""
    tasks: list[Any] = [Task([]) for _ in range(3000)]
    halves = tasks[::2], tasks[1::2]

    def add(half: list[Any]) -> None:
        for each in half:
            dispatcher.add_task(each)

    adding = [threading.Thread(target=add, args=(half,)) for half in halves]
    for thread in adding:
        thread.start()
    for thread in adding:
        thread.join()
    assert all(each.done.wait(TIMEOUT_S) for each in tasks)
    idle(dispatcher)
    deadline = time.monotonic() + TIMEOUT_S
    while len(dispatcher.threads) > KEPT and time.monotonic() < deadline:  # woken for what another took, it ends yet
        time.sleep(0.001)
    assert 1 <= len(dispatcher.threads) <= KEPT
