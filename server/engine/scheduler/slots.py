"""Whose tokens does memory hold, and what of a prompt is there already?

A slot is one of llama.cpp's sequence ids. It is under way (it has an owner), or idle: then it is empty, or it holds
what an earlier answer left, for a later prompt that begins alike.
"""

import itertools
from array import array
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Literal, Protocol

from server.engine.scheduler.alike import PIECE, whole
from server.engine.scheduler.cells import Cells, OwnCells
from server.engine.scheduler.sequence import Sequence
from server.engine.scheduler.tokens import common_prefix

Kind = Literal["full", "window", "recurrent"]
"""What memory keeps of a sequence: all positions, of some layers the last ones, or a state that is the last one's."""

COPY_FRACTION: Final = 32  # in a divided cache a copy moves a whole stream: worth it for more than this part of one

REUSED_FRACTION: Final = 10
"""Nor is less than this part of a prompt worth anything there: first words in common would tie it to a slot away from
those that came with it, which is one more pass over the weights in each step of theirs. llama-server has the same part.
Source: llama.cpp 0c1e570 common/common.h, slot_prompt_similarity."""


class Reuse(StrEnum):
    """Why tokens that memory held are evaluated again, in a word for metrics; docs/serving.md explains each."""

    NONE = ""
    WINDOW = "window"  # the layers with a window have dropped the positions before it
    RECURRENT = "recurrent"  # the state is that behind the last token, and the prompts differ before that
    DIVIDED = "divided"  # another sequence's part of the cache, and too short for a copy
    PREEMPTED = "preempted"  # its room was given to an older answer
    ADAPTERS = "adapters"  # they were computed with other adapters
    PIECES = "pieces"  # whole ones in front of the last are used where others must change no bit
    SCORES = "scores"  # log-probabilities of the prompt need its logits


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The room that a context has."""

    n_slots: int
    n_ctx_seq: int
    n_cells: int  # of all slots together if unified, else of each
    n_batch: int  # tokens a step
    n_outputs: int  # rows of logits a step
    unified: bool = False  # slots share the cells; not where there are none, but states
    kind: Kind = "full"
    block: int = 0  # slots whose answers go together so that others change no bit (`alike`); 0: as they come


class Memory(Protocol):
    """What the scheduler tells the memory of a model to do."""

    def keep(self, slot: int, n_tokens: int) -> None:
        """Forget all but a slot's first tokens."""
        ...

    def copy(self, source: int, target: int, n_tokens: int) -> None:
        """Give the target, which is empty, the source's first tokens."""
        ...

    def resumable(self, slot: int, n_tokens: int) -> bool:
        """Whether a slot of a windowed model can be gone on with behind its first tokens."""
        ...


@dataclass(slots=True, eq=False)
class Slot:
    """One sequence id: the tokens that memory holds of it."""

    id: int
    tokens: "array[int]" = field(default_factory=lambda: array("i"))
    owner: Sequence | None = None
    used_at: int = 0
    adapters: tuple[tuple[int, float], ...] = ()  # what its tokens were computed with
    n_whole: int = 0  # of its first tokens, that were read in whole pieces (`alike`)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The slot from which most of a prompt can be had: `n` tokens. `reason`: why not all that is held."""

    slot: Slot | None
    n: int
    n_missed: int
    reason: Reuse


NOTHING: Final = Found(slot=None, n=0, n_missed=0, reason=Reuse.NONE)


class Slots:
    """All slots of a context, and their cells; tells memory what to keep and to copy."""

    def __init__(self, layout: Layout, memory: Memory) -> None:
        self.layout = layout
        self.memory = memory
        self.all = [Slot(i) for i in range(layout.n_slots)]
        pool = Cells if layout.unified else OwnCells
        self.cells: Cells | OwnCells = pool(layout.n_cells, layout.n_slots)

    @property
    def idle(self) -> Iterator[Slot]:
        """Slots without an owner."""
        return (slot for slot in self.all if slot.owner is None)

    def next_free(self) -> Slot | None:
        """An idle slot: an empty one, or else one whose tokens were used long ago.

        In a divided cache slots under way that lie side by side are evaluated together (`Scheduler`), so of the empty
        ones and the half that was used longest ago, one beside them is taken (first, of those that go with them in a
        block); and of several the one that more of them follow, for those that come next.
        """
        idle = sorted(self.idle, key=lambda slot: (len(slot.tokens) > 0, slot.used_at))
        if not idle or self.layout.unified:
            return next(iter(idle), None)
        n_empty = sum(not slot.tokens for slot in idle)
        candidates = idle[: max(n_empty, (len(idle) + 1) // 2)]
        ids = {slot.id for slot in candidates}
        block = self.layout.block or 1
        busy = {slot.id // block for slot in self.all if slot.owner is not None}
        return max(
            candidates,
            key=lambda slot: (slot.id // block in busy, self._n_busy_beside(slot), _n_in_a_row(ids, slot.id)),
        )

    def _n_busy_beside(self, slot: Slot) -> int:
        beside = self.all[max(slot.id - 1, 0) : slot.id + 2]
        return sum(other.owner is not None for other in beside)  # it has none itself

    def find(self, sequence: Sequence) -> Found:
        """Where most of a sequence's tokens can be had; at least the last one is evaluated in any case."""
        want = len(sequence.tokens) - 1
        best: Slot | None = None
        n_best = n_held = 0
        why = Reuse.NONE
        for slot in self.all:
            n = sequence.without_part(min(common_prefix(slot.tokens, sequence.tokens), want))
            if not self.layout.unified and n * REUSED_FRACTION < want:
                continue
            n_usable, reason = self.usable(slot, n) if slot.adapters == sequence.adapters else (0, Reuse.ADAPTERS)
            if self.layout.block and (n_whole := whole(min(n_usable, slot.n_whole), len(sequence.tokens))) < n_usable:
                n_usable, reason = n_whole, Reuse.PIECES
            if n > n_held:
                n_held, why = n, reason
            if n_usable > n_best or (n_usable == n_best > 0 and best is not None and self._is_better(slot, best)):
                best, n_best = slot, n_usable
        return Found(slot=best, n=n_best, n_missed=n_held - n_best, reason=why if n_held > n_best else Reuse.NONE)

    def usable(self, slot: Slot, n: int) -> tuple[int, Reuse]:
        """How many of a slot's first `n` tokens can be gone on from, and why not all."""
        kind, is_whole = self.layout.kind, n == len(slot.tokens)
        if n and kind == "recurrent" and not is_whole:
            return 0, Reuse.RECURRENT
        if n and kind == "window" and not is_whole and not self.memory.resumable(slot.id, n):
            return 0, Reuse.WINDOW
        if n and slot.owner is not None and not self.is_worth_copying(n):
            return 0, Reuse.DIVIDED
        return n, Reuse.NONE

    def _is_better(self, slot: Slot, other: Slot) -> bool:
        """Of two that hold as much: one that can be gone on with as it is."""
        return (slot.owner is None, -len(slot.tokens)) > (other.owner is None, -len(other.tokens))

    def is_worth_copying(self, n: int) -> bool:
        """Whether `n` tokens are cheaper copied than evaluated: in a unified cache a copy costs nothing."""
        return self.layout.unified or n * COPY_FRACTION >= self.layout.n_ctx_seq

    def take(self, sequence: Sequence, found: Found, now: int) -> Slot:
        """Give a sequence a slot with what was found in it. There must be an idle one."""
        source, target = found.slot, self.next_free()
        assert target is not None
        if source is not None and source.owner is None and self._is_taken_over(source, target, found.n):
            target = source
            self.cut(target, found.n)
        else:
            self.cut(target, 0)
            if source is not None:
                self.copy(source, target, found.n)
        self.own(target, sequence, now)
        return target

    def _is_taken_over(self, source: Slot, target: Slot, n: int) -> bool:
        """Whether an idle slot is gone on with itself, instead of leaving it to others and going on with a copy."""
        return source is target or n == len(source.tokens) or not self.is_worth_copying(n)

    def own(self, slot: Slot, sequence: Sequence, now: int) -> None:
        """Make the sequence the slot's owner; it has what the slot has."""
        slot.owner, slot.used_at, slot.adapters = sequence, now, sequence.adapters
        self.cells.busy(slot.id, True)
        sequence.slot, sequence.n_done = slot.id, len(slot.tokens)

    def copy(self, source: Slot, target: Slot, n: int) -> None:
        """Copy the first tokens of a slot into an empty one."""
        if n:
            self.memory.copy(source.id, target.id, n)
            self.cells.share(source.id, target.id, n)
            target.tokens = source.tokens[:n]
            target.n_whole = min(source.n_whole, n // PIECE * PIECE)

    def cut(self, slot: Slot, n: int) -> None:
        """Forget all but the first tokens of a slot."""
        if n < len(slot.tokens):
            self.memory.keep(slot.id, n)
            self.cells.cut(slot.id, n)
            del slot.tokens[n:]
            slot.n_whole = min(slot.n_whole, n // PIECE * PIECE)

    def extend(self, slot: Slot, tokens: "array[int]", now: int) -> None:
        """Note that tokens have been evaluated."""
        if len(tokens) == PIECE and slot.n_whole == len(slot.tokens):
            slot.n_whole += PIECE
        slot.tokens.extend(tokens)
        slot.used_at = now
        self.cells.append(slot.id, len(tokens))

    def release(self, sequence: Sequence) -> Slot:
        """Take its slot from a sequence; what is in it stays."""
        assert sequence.slot is not None
        slot = self.all[sequence.slot]
        slot.owner, sequence.slot = None, None
        self.cells.busy(slot.id, False)
        return slot

    def evict(self) -> bool:
        """Forget the idle tokens that were used longest ago; False when there are none."""
        held: Iterable[Slot] = (slot for slot in self.idle if slot.tokens)
        slot = min(held, key=lambda slot: slot.used_at, default=None)
        if slot is None:
            return False
        self.cut(slot, 0)
        return True


def _n_in_a_row(ids: Container[int], first: int) -> int:
    """How many numbers from `first` on are among `ids`."""
    return next(n for n in itertools.count() if first + n not in ids)
