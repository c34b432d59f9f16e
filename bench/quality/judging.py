"""How far is a row of logits from the base's? Arithmetic of rows, a few at a time so that they stay in a core's cache.

Source: llama.cpp 0c1e570 tools/perplexity/perplexity.cpp, log_softmax (three of them), nearest_int.
"""

from collections.abc import Iterator
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
    """One behind the other."""
    return Judged(
        *(np.concatenate([getattr(p, name) for p in parts]) for name in ("nll", "nll_base", "kl", "same_top"))
    )


class Judge:
    """Works on rows with a few threads: numpy lets go of Python's lock in all that takes long here."""

    def __init__(self, n_threads: int) -> None:
        self._pool = ThreadPoolExecutor(n_threads)

    def alone(self, rows: F32, targets: Tokens) -> Judged:
        """Judge rows `(n, n_vocab)` by the tokens that came."""
        return joined(list(self._pool.map(lambda part: _alone(rows[part], targets[part]), _blocks(rows))))

    def keep(self, rows: F32, targets: Tokens, base: U16) -> Judged:
        """The same, and write the rows down as a base's, `(n, row_length)`."""
        return joined(list(self._pool.map(lambda p: _keep(rows[p], targets[p], base[p]), _blocks(rows))))

    def beside(self, rows: F32, targets: Tokens, base: U16) -> Judged:
        """Judge rows by the tokens that came and by the base's rows."""
        return joined(list(self._pool.map(lambda p: _beside(rows[p], targets[p], base[p]), _blocks(rows))))

    def close(self) -> None:
        """End its threads."""
        self._pool.shutdown()


def of_base(targets: Tokens, base: U16) -> Judged:
    """The base itself, by its rows on disk."""
    return _itself(_log_p(base, targets))


def _blocks(rows: F32) -> Iterator[slice]:
    step = max(1, BLOCK // rows.shape[1])
    return (slice(at, at + step) for at in range(0, len(rows), step))


def _itself(log_p: F32) -> Judged:
    nll = -log_p.astype(np.float64)
    return Judged(nll, nll, np.zeros_like(nll), np.ones(len(nll), np.bool_))


def _log_softmax(rows: F32) -> tuple[F32, F32]:
    """Logits below the highest of each row, `(n, n_vocab)`, and ln of the sum of their exponentials, `(n, 1)`."""
    below = rows - rows.max(axis=1, keepdims=True)
    return below, np.log(np.exp(below).sum(axis=1, keepdims=True))


def _alone(rows: F32, targets: Tokens) -> Judged:
    below, log_sum = _log_softmax(rows)
    return _itself(_picked(below, targets) - log_sum[:, 0])


def _picked(values: F32, targets: Tokens) -> F32:
    picked: F32 = values[np.arange(len(targets)), targets]
    return picked


def _keep(rows: F32, targets: Tokens, base: U16) -> Judged:
    below, log_sum = _log_softmax(rows)
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


def _beside(rows: F32, targets: Tokens, base: U16) -> Judged:
    log_q, log_sum = _log_softmax(rows)
    log_q -= log_sum
    head = np.ascontiguousarray(base[:, :HEAD]).view(np.float32)
    kept = base[:, HEAD : HEAD + rows.shape[1]]
    log_p = kept * head[:, :1]
    log_p += head[:, 1:]
    p = np.exp(log_p)
    p *= log_p > -LOWEST  # the lowest that a row can say stands for all below it
    nll, nll_base = -_picked(log_q, targets), -_picked(log_p, targets)
    log_p -= log_q
    log_p *= p
    return Judged(
        nll.astype(np.float64), nll_base.astype(np.float64), log_p.sum(axis=1).astype(np.float64),
        rows.argmax(axis=1) == kept.argmax(axis=1),
    )  # fmt: skip
