"""Guesses of what comes next: found where the last tokens stood before."""

from array import array
from typing import Any

import pytest

from server.engine.frames import Drafted
from server.engine.scheduler.guesses import Guesser
from server.engine.scheduler.lookup import Lookup, Lookups
from server.engine.scheduler.sequence import Sequence, Wish
from tests.server.engine.driver import Driver, layout
from tests.server.engine.fake_backend import FakeBackend


class Guessed:
    """The guesses of one answer."""

    def __init__(self, lookups: Lookups, **wish: int) -> None:
        self.guesser = Guesser([Lookup(lookups)])
        self.sequence = Sequence(id=0, index=0, order=0, tokens=array("i"), n_prompt=0, n_max=1000, wish=Wish(**wish))

    def guess(self, tokens: "array[int]", n_room: int) -> tuple[int, ...]:
        self.sequence.tokens = tokens
        return self.guesser.guess([self.sequence], n_room).get(self.sequence, ())

    def learn(self, n_guessed: int, n_right: int) -> None:
        self.guesser.learn(self.sequence, n_guessed, n_right)


def lookup(n_match: int = 2, n_max: int = 4, **wish: int) -> Guessed:
    return Guessed(Lookups(n_match=n_match, n_max=n_max), **wish)


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        ([1, 2, 3, 4, 9, 1, 2], (3, 4, 9, 1)),
        ([1, 2, 3, 1, 2, 4, 7, 1, 2], (4, 7, 1, 2)),  # the last time counts
        ([5, 5, 5, 5], (5,)),
        ([1, 2, 3, 4], ()),
        ([1, 2], ()),
        ([256, 1, 65536, 256, 1], (65536, 256, 1)),
        ([0, 1, 256, 0, 0, 1], (256, 0, 0, 1)),  # and not where bytes alone are alike, across tokens
    ],
)
def test_what_followed(tokens: list[int], expected: tuple[int, ...]) -> None:
    """What followed the last two tokens when they last stood together."""
    assert lookup().guess(array("i", tokens), 100) == expected


def test_limits() -> None:
    """No more than there is room for, and than asked; none rather than too few; only what stood there often."""
    tokens = array("i", [1, 2, 3, 4, 5, 6, 7, 1, 2])
    thrice = array("i", [1, 2, 3, 1, 2, 4, 1, 2])

    assert lookup().guess(tokens, 2) == (3, 4)
    assert lookup().guess(tokens, 0) == ()
    assert Guessed(Lookups(n_match=2, n_max=4), n_max=3).guess(tokens, 100) == (3, 4, 5)
    assert lookup(n_min=3).guess(tokens, 2) == ()
    often = Lookups(n_match=2, n_max=4, min_hits=2)
    assert Guessed(often).guess(tokens, 100) == ()
    assert Guessed(often).guess(thrice, 100) == (4, 1, 2)


def test_it_learns() -> None:
    """Right guesses make the next ones longer, up to what was asked; a wrong one makes them short."""
    tokens = array("i", [*range(100), *range(20)])
    guesses = lookup(n_match=3, n_max=16)
    lengths = []
    for _ in range(4):
        lengths.append(len(guesses.guess(tokens, 100)))
        guesses.learn(lengths[-1], lengths[-1])
    guesses.learn(16, 3)
    lengths.append(len(guesses.guess(tokens, 100)))
    guesses.learn(4, 0)
    lengths.append(len(guesses.guess(tokens, 100)))

    assert lengths == [4, 8, 16, 16, 4, 2]


@pytest.mark.parametrize("kind", ["full", "window"])
def test_guesses(kind: Any) -> None:
    """An answer that repeats itself takes fewer steps with guesses, and is the same; what was guessed is counted."""
    steps = {}
    for drafters in ([], [Lookup(Lookups(n_match=3, n_max=8))]):
        room = layout(kind=kind, n_ctx_seq=400, n_cells=400, n_outputs=30, n_batch=40)
        backend = FakeBackend(room, drafters=drafters)
        driver = Driver(backend)
        ids = [driver.submit((2, first), max_tokens=120) for first in (1, 5, 9)]
        driver.finish()
        assert [driver.answer(id) for id in ids] == [driver.expected(id) for id in ids]
        assert all(len(driver.answer(id)) == 120 for id in ids)
        steps[len(drafters)] = len(backend.steps)
        driver.check_clean()

    plain, guessed = steps.values()
    counters, reports = driver.loop.counters, [r for id in ids for r in driver.of(Drafted, id)]
    assert guessed < 0.5 * plain
    assert counters.n_drafted == sum(r.n_drafted for r in reports)
    assert counters.n_draft_accepted == sum(r.n_accepted for r in reports)
    assert counters.n_drafts == len(reports)
    assert 0.5 * counters.n_drafted < counters.n_draft_accepted <= counters.n_drafted


def test_guesses_by_request() -> None:
    """A request has no guesses if it wants none, and no more at a time than it allows."""
    room = layout(n_ctx_seq=200, n_cells=200, n_outputs=30, n_batch=40)
    driver = Driver(FakeBackend(room, drafters=[Lookup(Lookups(n_match=1, n_max=6))]))
    ids = [driver.submit((2, 1), max_tokens=100, draft_max=n) for n in (0, 3, None)]
    driver.finish()

    most = [max((r.n_drafted for r in driver.of(Drafted, id)), default=0) for id in ids]
    assert most == [0, 3, 6]
