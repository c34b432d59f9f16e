"""Who may come in, who is refused."""

import pytest

from server.engine.errors import NotReadyError, QueueFullError
from server.engine.generation import Generation
from server.engine.loop.places import Places
from server.engine.request import GenerationRequest


def generation(n: int = 1) -> Generation:
    return Generation(GenerationRequest(prompt=(1,), n=n))


def test_as_many_as_run_and_wait() -> None:
    """As many answers may be asked for as can run and wait; the next is refused with a guess at when to come back."""
    places = Places(max_waiting=1)
    places.n_slots = 2
    first = generation(2)
    places.take(first)
    places.take(generation())
    with pytest.raises(QueueFullError) as refused:
        places.take(generation())
    places.leave(first)
    places.take(generation())

    assert refused.value.retry_after_s > 0
    assert places.n_taken == 2


def test_one_is_never_too_many() -> None:
    """A request for more answers than there are places is taken when nobody else is there."""
    places = Places(max_waiting=1)
    places.take(generation(10))

    assert places.n_taken == 10


def test_gone_once() -> None:
    """Whoever has left twice has left once."""
    places, gone = Places(max_waiting=1), generation()
    places.take(gone)
    places.leave(gone, completed=False)
    places.leave(gone)

    assert places.n_taken == 0


def test_closed() -> None:
    """A closed engine takes nobody."""
    places = Places(max_waiting=1)
    places.close()

    with pytest.raises(NotReadyError):
        places.take(generation())
