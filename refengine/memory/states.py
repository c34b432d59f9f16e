"""In which row of the recurrent layers' memory is which sequence's state?

A batch works on rows one behind the other, in the order of its sequences. States that lie elsewhere are moved there,
those that lie there change places with them.

Source: llama.cpp 0c1e570 src/llama-memory-recurrent.cpp, find_slot; src/llama-memory-recurrent.h, s_copy.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ggufphys.graph.batch import StateRows
from refengine.batch import Numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """The rows that a batch works on, and the rows whose states they get: `(n_rows,)`."""

    rows: StateRows
    sources: Numbers


class States:
    """The rows of recurrent states, each of one sequence or free. All layers share the numbers."""

    def __init__(self, n_rows: int) -> None:
        self.owners: list[int | None] = [None] * n_rows

    def take(self, sequences: Sequence[int]) -> Taken:
        """Give rows to the sequences of a batch, in its order.

        Raises:
            ValueError: there are more sequences than rows.
        """
        begins = [s for s in sequences if s not in self.owners]
        free = [row for row, owner in enumerate(self.owners) if owner is None]
        if len(begins) > len(free):
            raise ValueError(f"{len(begins)} more sequences, but states of only {len(free)} more: use more n_seq_max")
        cleared = free[: len(begins)]
        for row, sequence in zip(cleared, begins, strict=True):
            self.owners[row] = sequence
        rows = [self.owners.index(s) for s in sequences]
        first, end = min(rows), max(rows) + 1
        zero = min(cleared, default=None)
        sources = [zero if zero is not None and row in cleared else row for row in range(first, end)]
        for target, sequence in enumerate(sequences, first):
            row = self.owners.index(sequence)
            i, j = target - first, row - first
            sources[i], sources[j] = sources[j], sources[i]
            self.owners[target], self.owners[row] = sequence, self.owners[target]
        return Taken(rows=StateRows(first=first, n_rows=end - first, zero=zero), sources=np.asarray(sources, np.int64))

    def remove(self, sequence: int) -> None:
        """Forget a sequence."""
        self.owners = [None if owner == sequence else owner for owner in self.owners]
