"""Thoughts while tokens are chosen: free of the grammar, and ended where their budget is spent."""

from collections.abc import Sequence

import pytest

from server.engine.loop.thoughts import ThoughtfulChooser
from server.engine.runner import Odds
from server.engine.sampling import Thoughts

CLOSING = (100, 101)
PIECES = {100: b"enough", 101: b"</think>", 102: b"<think>", 103: b"\xe2\x82", 104: b"\xac", 105: b"<th", 106: b"ink>"}


class Says:
    """Chooses what it is told to, and keeps what it was to remember."""

    def __init__(self, tokens: Sequence[int]) -> None:
        self.left = list(tokens)
        self.remembered: list[int] = []
        self.is_closed = False

    def remember(self, tokens: Sequence[int]) -> None:
        self.remembered += tokens

    def sample(self, row: int) -> int | None:
        return self.left.pop(0) if self.left else None

    def odds(self) -> Odds:
        return ()

    def close(self) -> None:
        self.is_closed = True


def piece(token: int) -> bytes:
    return PIECES.get(token, b"x")


def said(free: Says, then: Says, *, begun: bool, budget: int | None) -> list[int]:
    """All that is chosen, until there is nothing to say."""
    chooser = ThoughtfulChooser(Thoughts(begun=begun, budget=budget, closing=CLOSING), free, then, piece)
    found = []
    while (token := chooser.sample(0)) is not None:
        found.append(token)
    chooser.close()
    return found


def test_grammar_waits() -> None:
    """What was begun is thought freely; behind its end the other chooser goes on, which has seen it all."""
    free, then = Says([1, 2, 101]), Says([7, 8])

    assert said(free, then, begun=True, budget=None) == [1, 2, 101, 7, 8]
    assert then.remembered == [1, 2, 101]
    assert free.is_closed
    assert then.is_closed


@pytest.mark.parametrize(("begin", "n_seen"), [([102], 3), ([105, 106], 3), ([5], 0)])
def test_answers_that_may_begin_with_thoughts(begin: list[int], n_seen: int) -> None:
    """They are thoughts if the answer does begin so, and by the second chooser's will; else it says all."""
    free, then = Says([1, 2, 101]), Says([*begin, 7, 8])
    expected = [*begin, 1, 2, 101, 7, 8] if n_seen else [*begin, 7, 8]

    assert said(free, then, begun=False, budget=None) == expected
    assert len(then.remembered) == n_seen


@pytest.mark.parametrize(
    ("thought", "budget", "shown"),
    [
        ([1, 2, 3, 4], 2, [1, 2, *CLOSING]),
        ([1, 2, 3, 4], 0, [*CLOSING]),
        ([1, 103, 104, 4], 2, [1, 103, 104, *CLOSING]),  # not within a character
        ([1, 2, 101], 3, [1, 2, 101]),  # it came by itself
        ([1, 2, 101], 9, [1, 2, 101]),
    ],
)
def test_budget(thought: list[int], budget: int, shown: list[int]) -> None:
    """Behind so many tokens of thought the end is said, and remembered, and the answer goes on."""
    free, then = Says(thought), Says([7])

    assert said(free, then, begun=True, budget=budget) == [*shown, 7]
    assert then.remembered == shown


def test_one_chooser() -> None:
    """Without a grammar one chooser does both, and remembers what was said for it alone."""
    both = Says([1, 2, 7])

    assert said(both, both, begun=True, budget=1) == [1, *CLOSING, 2, 7]
    assert both.remembered == list(CLOSING)


def test_other_marks() -> None:
    """Thoughts that a model marks otherwise are free of the grammar, and bounded, too."""
    thoughts = Thoughts(begun=False, budget=2, closing=CLOSING, marks=(b"<th", b"enough"))
    free, then = Says([1, 2, 3, 4]), Says([105, 7, 8])
    chooser = ThoughtfulChooser(thoughts, free, then, piece)
    assert [chooser.sample(0) for _ in range(6)] == [105, 1, 2, 100, 7, 8]
