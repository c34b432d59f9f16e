"""A watch over the choices of tokens: what takes too long is told, what is done is not."""

import threading

from server.engine.patience import Patience


def test_late() -> None:
    """Only a choice that is under way, and for too long, is late."""
    patience = Patience(limit_s=-1.0)
    assert patience.late is None
    patience.begins(7)
    assert patience.late == 7
    patience.ends()
    assert patience.late is None
    slow = Patience(limit_s=1e9)
    slow.begins(7)
    assert slow.late is None


def test_watch() -> None:
    """Whoever watches is told whose choice it is."""
    patience, told, done = Patience(limit_s=0.0), list[int](), threading.Event()
    patience.watch(lambda id: (told.append(id), done.set()))
    patience.begins(3)
    while not done.wait(0.001):
        sum(range(1000))  # processor time is what counts

    assert told == [3]
