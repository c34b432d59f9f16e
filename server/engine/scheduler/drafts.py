"""What may come next, by a smaller model: what it finds likeliest, token by token, of all answers of a step together.

The draft model has the sequences of the model's, in a cache of its own. What that holds of an answer is cut where it
differs from what was said, then what is missing is evaluated: of a prompt in pieces that keep to the pace, since others
read meanwhile, so that an answer to a long one has no guesses in its first steps. Prompts are read when an answer has
begun: the first token waits for nothing.

Source: llama.cpp 0c1e570 common/speculative.cpp, common_speculative_impl_draft_simple.
"""

from array import array
from collections.abc import Iterable, Mapping
from collections.abc import Sequence as Many
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from server.engine.scheduler.guesses import Guesses
from server.engine.scheduler.pace import MIN_CHUNK, Pace
from server.engine.scheduler.sequence import Sequence
from server.engine.scheduler.slots import Layout, Memory, Slot, Slots
from server.engine.scheduler.tokens import common_prefix

N_MAX: Final = 3  # common/common.h, common_params_speculative_draft


@dataclass(frozen=True, slots=True, kw_only=True)
class Drafting:
    """How a draft model guesses: `n_max` tokens at most, `n_min` or none, each as likely as `p_min` to it."""

    n_max: int = N_MAX
    n_min: int = 0
    p_min: float = 0.0


class Piece(NamedTuple):
    """Consecutive tokens of a slot, from position `start` on, with a row of logits of the last."""

    slot: int
    start: int
    tokens: "array[int]"


class DraftModel(Memory, Protocol):
    """What computes: a model in a context with as many sequences as the one whose answers are guessed."""

    @property
    def layout(self) -> Layout:
        """The room that the draft's context has."""
        ...

    @property
    def n_vocab(self) -> int:
        """Tokens that it knows: others cannot be evaluated."""
        ...

    def evaluate(self, pieces: Many[Piece]) -> float | None:
        """Evaluate, and have a row of logits for each piece: seconds. None: it could not; memory is as it was."""
        ...

    def likeliest(self, row: int, p_min: float) -> int | None:
        """The likeliest token of a row; None if it is less likely than `p_min`, or may not be guessed."""
        ...


class Drafts:
    """Guesses by a draft model; implements `Drafter`."""

    def __init__(self, model: DraftModel, drafting: Drafting, target_s: float) -> None:
        self._model = model
        self._drafting = drafting
        self._pace = Pace(target_s, model.layout.n_batch)
        self.slots = Slots(model.layout, model)
        self.n_max, self.n_min = drafting.n_max, drafting.n_min
        self._now = 0

    def guess(self, asked: Mapping[Sequence, int], n_room: int) -> Guesses:
        """What the model finds likeliest, of each answer that it has caught up with."""
        self._now += 1
        limits = {}
        for sequence, n in asked.items():
            if n_room > 0:
                limits[sequence] = min(n, n_room)
                n_room -= limits[sequence]
        guesses: Guesses = {}
        rows = self._catch_up(limits)
        while rows:
            pieces = {}
            for sequence, row in rows.items():
                token = self._model.likeliest(row, self._p_min(sequence))
                if token is not None:
                    guesses[sequence] = (*guesses.get(sequence, ()), token)
                    if len(guesses[sequence]) < limits[sequence]:
                        pieces[sequence] = array("i", (token,))
            rows = self._evaluate(pieces)
        return guesses

    def learn(self, sequence: Sequence, n_guessed: int, n_right: int) -> None:
        """All guesses are as long, as llama-server's."""

    def forget(self, sequence: Sequence) -> None:
        """What is held of it stays, for one that begins alike."""

    def _p_min(self, sequence: Sequence) -> float:
        wish = sequence.wish
        return self._drafting.p_min if wish is None or wish.p_min is None else wish.p_min

    def _slot(self, sequence: Sequence) -> Slot:
        assert sequence.slot is not None
        return self.slots.all[sequence.slot]

    def _catch_up(self, sequences: Iterable[Sequence]) -> dict[Sequence, int]:
        """Evaluate what is missing, as much as goes into a step; rows of logits of those that then have all."""
        missing = {sequence: self._missing(sequence) for sequence in sequences}
        near = [sequence for sequence, tokens in missing.items() if len(tokens) <= MIN_CHUNK]
        far = sorted(missing.keys() - set(near), key=lambda sequence: (len(missing[sequence]), sequence.order))
        n_far = sum(len(missing[sequence]) for sequence in far)
        n_near = sum(len(missing[sequence]) for sequence in near)
        n_budget = self._pace.n_prompt(max(n_near, 1), len(far), n_far)
        n_left = self._pace.n_max
        pieces = {}
        for sequence in (*near, *far):
            n = min(len(missing[sequence]), n_left, n_left if sequence in near else n_budget)
            if n > 0 and max(missing[sequence][:n]) < self._model.n_vocab:
                pieces[sequence] = missing[sequence][:n]
                n_left -= n
                n_budget -= 0 if sequence in near else n
        rows = self._evaluate(pieces)
        return {s: row for s, row in rows.items() if len(pieces[s]) == len(missing[s])}

    def _missing(self, sequence: Sequence) -> "array[int]":
        """The tokens that its slot lacks, the last one among them, when it holds no others than the sequence's.

        What another slot holds of them is copied: a beginning in common, or what the sequence left in its last slot.
        """
        slot, want = self._slot(sequence), len(sequence.tokens) - 1

        def held(other: Slot) -> int:
            return self.slots.usable(other, min(common_prefix(other.tokens, sequence.tokens), want))[0]

        n = held(slot)
        if want - n > MIN_CHUNK:
            best = max(self.slots.all, key=held)
            if (n_best := held(best)) > n + MIN_CHUNK and self.slots.is_worth_copying(n_best):
                self.slots.cut(slot, 0)
                self.slots.copy(best, slot, n_best)
                n = n_best
        self.slots.cut(slot, n)
        return sequence.tokens[n:]

    def _evaluate(self, pieces: "dict[Sequence, array[int]]") -> dict[Sequence, int]:
        """Evaluate tokens behind what is held: each sequence's row of logits. Where there is no room, fewer."""
        while not self._make_room(sum(map(len, pieces.values())), pieces):
            pieces.popitem()
        if not pieces:
            return {}
        # In the order of slots, as the scheduler has it: in a divided cache each step back is another pass.
        order = sorted(pieces, key=lambda sequence: self._slot(sequence).id)
        batch = [Piece((slot := self._slot(s)).id, len(slot.tokens), pieces[s]) for s in order]
        seconds = self._model.evaluate(batch)
        if seconds is None:
            for slot in self.slots.all:
                self.slots.cut(slot, 0)  # whatever it was, it begins anew
            return {}
        self._pace.learn(sum(map(len, pieces.values())), seconds)
        for sequence in order:
            self.slots.extend(self._slot(sequence), pieces[sequence], self._now)
        return {sequence: row for row, sequence in enumerate(order)}

    def _make_room(self, n: int, wanted: Iterable[Sequence]) -> bool:
        """Forget what others left until `n` cells are free, the longest unused first; False if that is not enough."""
        taken = {sequence.slot for sequence in wanted}
        while n > self.slots.cells.n_free:
            others = [slot for slot in self.slots.all if slot.tokens and slot.id not in taken]
            if not others:
                return False
            self.slots.cut(min(others, key=lambda slot: slot.used_at), 0)
        return True
