"""Tokens of nobody's, that make a batch's shape what it is without others (`scheduler/alike.py`), and a trial of it."""

import ctypes
import hashlib
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from ggufphys import UnsupportedError
from server.engine.errors import EngineError
from server.engine.llama.batch import Batch
from server.engine.llama.handles import Context
from server.engine.scheduler.alike import fillers
from server.engine.scheduler.sequence import Chunk
from server.engine.scheduler.slots import Layout

TOKEN: Final = 0  # whichever: each row is computed by itself


class Filling:
    """What fills up the blocks of a step; nothing where a prompt is read.

    llama.cpp evaluates in one pass what lies in slots one behind the other, in the batch's order, so each has its place
    there, and a row of logits, since those are products of matrices too.
    """

    def __init__(self, context: Context, batch: Batch, chunks: Sequence[Chunk], block: int) -> None:
        self._context = context
        self._batch = batch
        is_of_answers = all([len(chunk) == 1 for chunk in chunks])
        self._slots = fillers([chunk.slot for chunk in chunks], block) if is_of_answers else []
        self._n_past: dict[int, int] = {}

    def add(self, before: int | None = None) -> None:
        """Put into the batch what lies before a slot; None: what is left."""
        while self._slots and (before is None or self._slots[0] < before):
            slot = self._slots.pop(0)
            self._n_past[slot] = n_past = self._context.n_past(slot)
            self._batch.add((TOKEN,), seq_id=slot, start=n_past, logits_of_last=True)

    def take_back(self) -> None:
        """Have memory forget it."""
        for slot, n_past in self._n_past.items():
            self._context.remove(slot, n_past)


def check_alike(context: Context, batch: Batch, layout: Layout, n_vocab: int) -> None:
    """Try whether a token's logits are the same to the bit in every slot, in one block of slots and in several.

    Raises:
        UnsupportedError: they are not, or the model keeps no cache in which they could be.
        EngineError: llama.cpp could not evaluate it.
    """
    path = context.model.path
    if layout.kind != "full":
        why = {"window": "drops what a window has passed (--swa-full keeps it)", "recurrent": "is a state"}[layout.kind]
        raise UnsupportedError(f"{path}: --batch-invariant: its memory {why}, so no token can be taken back from it")
    sizes = sorted({min(n * layout.block, layout.n_slots) for n in (1, 2, 3)} | {layout.n_slots})
    seen: dict[bytes, int] = {}
    for n in sizes:
        batch.clear()
        for slot in range(n):
            batch.add((TOKEN,), seq_id=slot, start=0, logits_of_last=True)
        code = batch.decode(context)
        if code:
            raise EngineError(f"{path}: llama_decode failed with code {code} for {n} tokens")
        values: Any = (ctypes.c_float * (n * n_vocab)).from_address(context.logits_address())
        for row in np.frombuffer(values, np.float32).reshape(n, n_vocab):
            seen.setdefault(hashlib.blake2b(row.tobytes()).digest(), n)
        context.clear()
    if len(seen) > 1:
        raise UnsupportedError(
            f"{path}: --batch-invariant: with this build of llama.cpp a token's logits differ between "
            f"{' and '.join(map(str, dict.fromkeys(seen.values())))} rows, which were expected to be computed alike"
        )
