"""Whether guessing pays is found out by trying, and both ways are tried again now and then."""

from collections.abc import Callable, Sequence
from itertools import count

import pytest

from server.engine.backend import Outcome
from server.engine.scheduler.guesses import Guesser
from server.engine.scheduler.sequence import Chunk
from server.engine.scheduler.worth import EVERY, FIRST, TRIAL, Worth
from tests.server.engine.driver import Driver
from tests.server.engine.fake_backend import FakeBackend
from tests.server.engine.fake_draft import FakeDraft
from tests.server.engine.test_drafts import ROOM

Took = Callable[[int, bool], tuple[int, float]]  # of a step, with guesses or without: tokens and seconds


def played(worth: Worth, took: Took, n_steps: int, n_answers: int = 1) -> list[bool]:
    """The ways of so many steps."""
    ways = []
    for step in range(n_steps):
        ways.append(way := worth.wants(n_answers))
        n_said, seconds = took(step, way)
        worth.learn(n_answers, guessed=way, n_said=n_said, seconds=seconds)
    return ways


@pytest.mark.parametrize("pays", [True, False])
def test_the_faster_way(pays: bool) -> None:
    """After a trial of both the faster way is taken, and the other tried less and less often."""
    step_s = 2.0 if pays else 4.0
    ways = played(Worth(), lambda step, way: (3, step_s) if way else (1, 1.0), 4000)

    assert ways[: sum(FIRST)] == [True] * FIRST[0] + [False] * FIRST[1]
    others = [i for i, way in enumerate(ways[sum(FIRST) :]) if way != pays]
    assert others[:TRIAL] == list(range(EVERY[0], EVERY[0] + TRIAL))
    assert len(others) < 0.01 * len(ways)


def test_what_changes_is_seen() -> None:
    """When the other way becomes the faster one it is taken with the next trial, and disturbed steps change nothing."""
    disturbed = count()

    def took(step: int, way: bool) -> tuple[int, float]:
        slow = 10.0 if next(disturbed) % 5 == 4 else 1.0
        return (2, (1.5 if step > 300 else 3.0) * slow) if way else (1, 1.0 * slow)

    ways = played(Worth(), took, 900)

    assert sum(ways[sum(FIRST) : 300]) <= 3 * TRIAL
    assert all(ways[600:650])


def test_doubts_are_looked_into() -> None:
    """When guesses become worse the other way is tried at once: a dozen steps tell."""
    ways = played(Worth(), lambda step, way: ((3 if step < 300 else 1), 2.0) if way else (1, 1.0), 400)

    assert sum(ways[:300]) > 280
    assert not any(ways[300 + 12 : 300 + EVERY[0]])


def test_by_the_number_of_answers() -> None:
    """What pays for one answer need not for many."""
    worth = Worth()
    alone = played(worth, lambda step, way: (3, 2.0) if way else (1, 1.0), 60)
    crowd = played(worth, lambda step, way: (12, 9.0) if way else (8, 4.0), 60, n_answers=8)

    assert alone[20:50] == [True] * 30
    assert crowd[20:50] == [False] * 30


def test_steps_that_say_nothing() -> None:
    """A step that was to have guesses and has none, since a draft is still reading, is no trial of either way."""
    worth = Worth()
    guesser = Guesser(worth=worth)
    for _ in range(100):
        guesser.took(1, 5.0, guessed=False)
        worth.learn(1, guessed=False, n_said=1, seconds=5.0)

    assert worth.wants(1)
    assert played(worth, lambda step, way: (3, 2.0) if way else (1, 1.0), 10)[:9] == [True] * 8 + [False]


@pytest.mark.parametrize("wrong", [0, 1])
def test_in_the_loop(wrong: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong guesses are given up and right ones not, where each token evaluated takes time; answers are the same."""
    monkeypatch.setattr("server.engine.loop.loop.time.perf_counter", clock := Clock())
    draft = FakeDraft(ROOM, wrong=wrong)
    backend = FakeBackend(ROOM)
    backend.guesser = Guesser([draft.drafts()], Worth())
    decode = backend.decode

    def timed(chunks: Sequence[Chunk]) -> Outcome:
        clock.now += 1.0 + 0.1 * sum(map(len, chunks))
        return decode(chunks)

    backend.decode = timed  # type: ignore[method-assign]
    driver = Driver(backend)
    ids = [driver.submit((2, 1 + i), max_tokens=150) for i in range(3)]
    driver.finish()

    assert [driver.answer(id) for id in ids] == [driver.expected(id) for id in ids]
    n_drafts = driver.loop.counters.n_drafts
    assert n_drafts < 60 if wrong else n_drafts > 60
    driver.check_clean()


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now
