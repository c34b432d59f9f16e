"""A watch over the choices of tokens: what takes too long is told, what is done is not."""

import queue

from server.engine.loop.patience import Patience


def test_late() -> None:
    """Only a choice that is under way, and for too long, is late."""
    patience = Patience(limit_s=-1.0)
    seen = [patience.late]
    patience.begins(7)
    seen.append(patience.late)
    patience.ends()
    seen.append(patience.late)
    slow = Patience(limit_s=1e9)
    slow.begins(7)

    assert seen == [None, 7, None]
    assert slow.late is None


def test_watch() -> None:
    """Whoever watches is told whose choice it is."""
    told: queue.SimpleQueue[int] = queue.SimpleQueue()
    patience = Patience(limit_s=0.0)
    patience.watch(told.put)
    patience.begins(3)
    while told.empty():
        sum(range(1000))  # processor time is what counts

    assert told.get() == 3
