"""How a batch becomes physical batches, which rows recurrent states get, what a window hides."""

import numpy as np
import pytest

from refengine.batch import Split, batch_of, physical_batches
from refengine.memory.states import States
from refengine.memory.windows import Window, beyond


def _split(sequences: list[int], n_ubatch: int, split: Split) -> list[tuple[list[int], int]]:
    return [(part.tolist(), n) for part, n in physical_batches(np.array(sequences), n_ubatch, split)]


def test_simple() -> None:
    """Tokens as they come."""
    assert _split([0, 1, 0, 1, 1], 2, "simple") == [([0, 1], 1), ([2, 3], 1), ([4], 1)]


def test_equal() -> None:
    """As many tokens of each sequence, in the order of their first tokens; who has more goes on alone."""
    assert _split([2, 0, 0, 2, 0], 6, "equal") == [([0, 3, 1, 2], 2), ([4], 1)]
    assert _split([2, 0, 0, 2, 0], 2, "equal") == [([0, 1], 2), ([2, 3], 2), ([4], 1)]


def test_consecutive() -> None:
    """Only sequences whose numbers follow each other share a physical batch."""
    assert _split([0, 2, 1, 0], 8, "consecutive") == [([0, 2], 2), ([1], 1), ([3], 1)]
    assert _split([2, 0, 0], 8, "consecutive") == [([0], 1), ([1, 2], 1)]


def test_part() -> None:
    """A part of a batch wants the logits that the batch wants of its tokens, wherever they stand in it."""
    batch = batch_of([(7, 0, 1, False), (8, 0, 0, True), (9, 1, 1, True)])

    part = batch.part(np.array([2, 0]))

    assert (part.ids.tolist(), part.positions.tolist(), part.sequences.tolist()) == ([9, 7], [1, 0], [1, 1])
    assert part.outputs.tolist() == [0]
    assert batch.outputs.tolist() == [1, 2]


def test_states() -> None:
    """A batch's states lie in rows one behind the other; what is in the way changes places; new ones begin cleared."""
    states = States(4)
    first = states.take([0, 1, 2])
    assert (first.rows.first, first.rows.n_rows, first.rows.zero, first.sources.tolist()) == (0, 3, 0, [0, 0, 0])

    swapped = states.take([2, 0])
    assert states.owners == [2, 0, 1, None]
    assert (swapped.rows.first, swapped.rows.zero, swapped.sources.tolist()) == (0, None, [2, 0, 1])

    joined = states.take([1, 3])
    assert (joined.rows.first, joined.rows.n_rows, joined.rows.zero) == (2, 2, 3)
    assert joined.sources.tolist() == [2, 3]

    states.remove(2)
    again = states.take([2])
    assert (again.rows.first, again.rows.n_rows, again.rows.zero, again.sources.tolist()) == (0, 1, 0, [0])
    with pytest.raises(ValueError, match="more n_seq_max"):
        states.take([4])


@pytest.mark.parametrize(
    ("window", "own", "seen"),
    [("standard", 9, [6, 7, 8, 9, 10]), ("chunked", 9, [8, 9, 10]), ("chunked", 7, [4, 5, 6, 7, 8, 9, 10]),
     ("symmetric", 5, [3, 4, 5, 6, 7])],
)  # fmt: skip
def test_windows(window: Window, own: int, seen: list[int]) -> None:
    """Of positions up to 10, with a window of 4."""
    held = np.arange(11)

    assert held[~beyond(window, 4, held, own)].tolist() == seen
