"""What is decoded at once, and in which physical batches does llama.cpp compute it?

Source: llama.cpp 0c1e570 src/llama-batch.cpp, split_simple, split_equal; init_batch of src/llama-kv-cache.cpp,
llama-kv-cache-iswa.cpp, llama-memory-recurrent.cpp, llama-memory-hybrid.cpp.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.int64]

Split = Literal["simple", "equal", "consecutive"]
"""How physical batches are made: of tokens as they come; or of as many tokens of each sequence, whose numbers may have
to be consecutive."""


def token_ids(tokens: Sequence[int]) -> Numbers:
    """Token ids as an array, `(T,)`.

    Raises:
        TypeError: something else than whole numbers.
    """
    if isinstance(tokens, str | bytes):
        raise TypeError(f"tokens are a text, {tokens!r}: expected ids; model.tokenize(text) makes them")
    found = np.asarray(tokens)
    if found.ndim != 1 or (found.size and found.dtype.kind not in "iu"):
        raise TypeError(
            f"tokens are of shape {found.shape} and type {found.dtype}, expected one sequence of ids, such as [1, 2, 3]"
        )
    return found.astype(np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """A batch: token ids, positions and sequences, `(T,)` each; `wanted` are the tokens whose logits are asked for.

    `wanted` are numbers within the batch, ascending; None stands for all. A sequence's positions ascend one by one.
    """

    ids: Numbers
    positions: Numbers
    sequences: Numbers
    wanted: Numbers | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def outputs(self) -> Numbers:
        """The numbers of the tokens whose logits are asked for."""
        return np.arange(len(self)) if self.wanted is None else self.wanted

    def part(self, numbers: Numbers) -> "Tokens":
        """Some of the tokens, in the order of their numbers."""
        asked = np.zeros(len(self), bool)
        asked[self.outputs] = True
        return Tokens(
            ids=self.ids[numbers], positions=self.positions[numbers], sequences=self.sequences[numbers],
            wanted=np.flatnonzero(asked[numbers]),
        )  # fmt: skip


def batch_of(rows: Sequence[tuple[int, int, int, bool]]) -> Tokens:
    """A batch of (token, position, sequence, whether its logits are wanted)."""
    table = np.asarray(rows, np.int64).reshape(-1, 4)
    return Tokens(ids=table[:, 0], positions=table[:, 1], sequences=table[:, 2], wanted=np.flatnonzero(table[:, 3]))


def physical_batches(sequences: Numbers, n_ubatch: int, split: Split) -> Iterator[tuple[Numbers, int]]:
    """Which tokens are computed at once, as numbers in their order there, and how many sequences share them evenly.

    Args:
        sequences: of each token.
        n_ubatch: tokens in a physical batch, at most.
        split: how they are chosen. "simple" counts as one sequence.
    """
    if split == "simple":
        for first in range(0, len(sequences), n_ubatch):
            yield np.arange(first, min(first + n_ubatch, len(sequences))), 1
        return
    waiting = {int(s): np.flatnonzero(sequences == s) for s in np.unique(sequences)}
    while waiting:
        chosen = _chosen(sequences[np.sort(np.concatenate(list(waiting.values())))], n_ubatch, split)
        n = min(max(1, n_ubatch // len(chosen)), *(len(waiting[s]) for s in chosen))
        yield np.concatenate([waiting[s][:n] for s in chosen]), len(chosen)
        waiting = {s: rest for s, numbers in waiting.items() if len(rest := numbers[n:] if s in chosen else numbers)}


def _chosen(sequences: Numbers, n_ubatch: int, split: Split) -> list[int]:
    """The sequences that take part in the next physical batch."""
    chosen: list[int] = []
    for sequence in sequences.tolist():
        fits = split == "equal" or not chosen or sequence == chosen[-1] + 1
        if fits and sequence not in chosen:
            chosen.append(sequence)
            if len(chosen) > n_ubatch:
                break
    return chosen
