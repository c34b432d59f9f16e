"""Who waits, who is refused."""

import threading
import time

import pytest

from server.engine.errors import NotReadyError, QueueFullError
from server.engine.protocol import Generation, GenerationRequest
from server.engine.queue import GenerationQueue


def generation() -> Generation:
    return Generation(GenerationRequest(prompt=(1,)))


def test_first_in_first_out() -> None:
    """Generations are taken in the order they came."""
    queue, first, second = GenerationQueue(2), generation(), generation()
    queue.put(first)
    queue.put(second)

    assert [queue.get(), queue.get()] == [first, second]


def test_full() -> None:
    """One more than may wait is refused, with the mean of recent durations as the time to come back."""
    queue = GenerationQueue(1)
    queue.put(generation())
    queue.completed(time.perf_counter() - 5.0)

    with pytest.raises(QueueFullError) as refused:
        queue.put(generation())
    assert refused.value.retry_after_s == pytest.approx(5.0, abs=1.0)


def test_cancelled_gives_place_up() -> None:
    """A cancelled generation neither holds a place nor is taken."""
    queue, gone, there = GenerationQueue(1), generation(), generation()
    queue.put(gone)
    gone.cancel()
    queue.put(there)

    assert queue.get() is there


def test_close() -> None:
    """Closing gives back who waits, wakes the engine's thread, and refuses what comes later."""
    queue, waiting = GenerationQueue(1), generation()
    taken: list[Generation | None] = []
    queue.put(waiting)

    assert queue.close() == (waiting,)
    thread = threading.Thread(target=lambda: taken.append(queue.get()))
    thread.start()
    thread.join(5)
    assert taken == [None]
    with pytest.raises(NotReadyError):
        queue.put(generation())
