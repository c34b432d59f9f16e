"""How far is a row of logits from the base's? Arithmetic of rows, a few at a time so that they stay in a core's cache.

Source: llama.cpp 0c1e570 tools/perplexity/perplexity.cpp, log_softmax (three of them), nearest_int.
"""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from bench.quality.base import F64, HEAD, U16
from bench.quality.readers import F32
from bench.quality.windows import Tokens

LOWEST: Final = np.float32(16)  # nats below the likeliest token that a row of the base reaches
STEPS: Final = np.float32(65535)
BLOCK: Final = 1 << 17  # logits at a time


@dataclass(frozen=True, slots=True)
class Judged:
    """Of each judged token: -ln p, and beside the base: its -ln p, KL divergence in nats, same likeliest token.

    All `(n,)`; without a base `kl` is empty.
    """

    nll: F64
    nll_base: F64
    kl: F64
    same_top: npt.NDArray[np.bool_]

    @property
    def dp(self) -> F64:
        """By how much more probable the text's token is than to the base."""
        return np.exp(-self.nll) - np.exp(-self.nll_base)


def joined(parts: list[Judged]) -> Judged:
    """The judged tokens of all parts, one part behind the other."""
    return Judged(
        *(np.concatenate([getattr(p, name) for p in parts]) for name in ("nll", "nll_base", "kl", "same_top"))
    )


class Judge:
    """Works on rows with a few threads: numpy lets go of Python's lock in all that takes long here.

    Each thread has its own room for intermediate values, kept from call to call: arrays made anew for each block cost
    more, in pages that the system hands out, than the arithmetic does.
    """

    def __init__(self, n_threads: int) -> None:
        self._pool = ThreadPoolExecutor(n_threads)
        self._rooms: list[_Room] = [_Room() for _ in range(n_threads)]

    def alone(self, rows: F32, targets: Tokens) -> Judged:
        """Judge rows `(n, n_vocab)` by the tokens that came."""
        return self._in_blocks(rows, lambda part, room: _alone(rows[part], targets[part], room))

    def keep(self, rows: F32, targets: Tokens, base: U16) -> Judged:
        """Judge rows by the tokens that came, and write the rows down as a base's, `(n, row_length)`."""
        return self._in_blocks(rows, lambda part, room: _keep(rows[part], targets[part], base[part], room))

    def beside(self, rows: F32, targets: Tokens, base: U16) -> Judged:
        """Judge rows by the tokens that came and by the base's rows."""
        return self._in_blocks(rows, lambda part, room: _beside(rows[part], targets[part], base[part], room))

    def _in_blocks(self, rows: F32, judge: Callable[[slice, "_Room"], Judged]) -> Judged:
        n, at_once = len(rows), max(1, BLOCK // rows.shape[1])
        share = -(-n // len(self._rooms))

        def work(start: int, room: _Room) -> list[Judged]:
            end = min(start + share, n)
            return [judge(slice(at, min(at + at_once, end)), room) for at in range(start, end, at_once)]

        parts = self._pool.map(work, range(0, n, share), self._rooms)
        return joined([judged for part in parts for judged in part])

    def close(self) -> None:
        """End its threads."""
        self._pool.shutdown()


class _Room:
    """Arrays of a block's shape for one thread's intermediate values."""

    def __init__(self) -> None:
        self._size = 0

    def of(self, shape: tuple[int, ...]) -> tuple[F32, F32, npt.NDArray[np.bool_]]:
        """Two of F32 and one of truths, of any content, valid until the next call."""
        size = math.prod(shape)
        if size > self._size:
            self._first, self._second = np.empty(size, np.float32), np.empty(size, np.float32)
            self._truths, self._size = np.empty(size, np.bool_), size
        return (
            self._first[:size].reshape(shape),
            self._second[:size].reshape(shape),
            self._truths[:size].reshape(shape),
        )


def of_base(targets: Tokens, base: U16) -> Judged:
    """The base itself, by its rows on disk."""
    return _itself(_log_p(base, targets))


def _itself(log_p: F32) -> Judged:
    nll = -log_p.astype(np.float64)
    return Judged(nll, nll, np.zeros_like(nll), np.ones(len(nll), np.bool_))


def _log_softmax(rows: F32, below: F32, room: F32) -> F32:
    """Fill `below` with logits below the highest of each row; ln of the sum of their exponentials, `(n, 1)`."""
    np.subtract(rows, rows.max(axis=1, keepdims=True), out=below)
    log_sum: F32 = np.log(np.exp(below, out=room).sum(axis=1, keepdims=True))
    return log_sum


def _alone(rows: F32, targets: Tokens, room: _Room) -> Judged:
    below, other, _ = room.of(rows.shape)
    log_sum = _log_softmax(rows, below, other)
    return _itself(_picked(below, targets) - log_sum[:, 0])


def _picked(values: F32, targets: Tokens) -> F32:
    picked: F32 = values[np.arange(len(targets)), targets]
    return picked


def _keep(rows: F32, targets: Tokens, base: U16, room: _Room) -> Judged:
    below, other, _ = room.of(rows.shape)
    log_sum = _log_softmax(rows, below, other)
    lowest = np.maximum(below.min(axis=1, keepdims=True), -LOWEST)
    step = -lowest / STEPS
    head = base[:, :HEAD].view(np.float32)
    head[:, :1], head[:, 1:] = step, lowest - log_sum
    judged = _itself(_picked(below, targets) - log_sum[:, 0])
    below -= lowest
    below *= np.where(step > 0, 1 / np.where(step > 0, step, 1), 0)
    np.maximum(below, 0, out=below)
    base[:, HEAD : HEAD + rows.shape[1]] = np.rint(below, out=below)
    return judged


def _log_p(base: U16, targets: Tokens) -> F32:
    head = np.ascontiguousarray(base[:, :HEAD]).view(np.float32)
    return head[:, 0] * base[np.arange(len(targets)), HEAD + targets] + head[:, 1]


def _beside(rows: F32, targets: Tokens, base: U16, room: _Room) -> Judged:
    log_q, log_p, in_reach = room.of(rows.shape)
    log_q -= _log_softmax(rows, log_q, log_p)
    head = np.ascontiguousarray(base[:, :HEAD]).view(np.float32)
    kept = base[:, HEAD : HEAD + rows.shape[1]]
    np.multiply(kept, head[:, :1], out=log_p)
    log_p += head[:, 1:]
    nll, nll_base = -_picked(log_q, targets), -_picked(log_p, targets)
    np.greater(log_p, -LOWEST, out=in_reach)  # the lowest that a row can say stands for all below it
    np.subtract(log_p, log_q, out=log_q)
    p = np.exp(log_p, out=log_p)
    p *= in_reach
    return Judged(
        nll.astype(np.float64), nll_base.astype(np.float64), np.einsum("ij,ij->i", p, log_q).astype(np.float64),
        rows.argmax(axis=1) == kept.argmax(axis=1),
    )  # fmt: skip
