"""Guesses of what comes next: found where the last tokens stood before."""

from array import array

import pytest

from server.engine.scheduler.guesses import Guesser
from server.engine.scheduler.lookup import Lookup, Lookups
from server.engine.scheduler.sequence import Sequence, Wish


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
