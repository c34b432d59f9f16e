"""Which tokens go into the next step? First a token of each answer, then as much of prompts as the pace allows.

First come, first served: prompts are admitted in the order they came, and the oldest of those being evaluated gets at
least half of the room, so that it cannot starve; the rest goes to shorter ones. Where room runs short, what idle slots
hold goes first, then the youngest answer gives way: its tokens are kept here and evaluated again later. The oldest
never gives way and any request fits by itself, so there is always one that goes on.
"""

from bisect import insort
from collections import Counter
from collections.abc import Iterator
from operator import attrgetter

from server.engine.scheduler.alike import LONGEST, PIECE, piece_end, whole
from server.engine.scheduler.guesses import Guesser, Guesses
from server.engine.scheduler.pace import DEEP, MIN_CHUNK, TILE, Pace
from server.engine.scheduler.sequence import Chunk, Sequence
from server.engine.scheduler.slots import NOTHING, Found, Layout, Memory, Reuse, Slots
from server.engine.scheduler.tokens import common_prefix
from server.engine.scheduler.turns import Turns


class Scheduler:
    """Sequences that wait and sequences under way. Not for several threads.

    A step is `plan`, the evaluation of its chunks by somebody, `done` (or `relieve`, when there was no room after all),
    then `accept` or `finish` for each sequence that has a row of logits, and `learn`.
    """

    def __init__(self, layout: Layout, memory: Memory, pace: Pace, guesser: Guesser | None = None) -> None:
        self.layout = layout
        self.slots = Slots(layout, memory)
        self.pace = pace
        self.waiting: list[Sequence] = []
        self.active: list[Sequence] = []  # oldest first
        self.now = 0  # steps
        self.n_max = layout.n_batch  # less after a batch found no room
        self.admitted: list[Sequence] = []  # by the last plan, for the first time
        self.preempted: list[Sequence] = []  # by the last plan
        self.n_cached = 0  # tokens of prompts that were not evaluated
        self._turns = Turns()
        self.guesser = guesser or Guesser()
        self._took: tuple[float, bool] | None = None  # the last step, if it had answers alone, and whether guessed
        self._n_said = 0  # tokens that came of it
        self._was_full = False
        self._again: list[Chunk] = []  # the last step's, if the next one may be the next token of the same answers
        self._held_s = 0.0  # that answers have waited while a crowd's prompts are read
        self._was_span = False  # the last step was an image
        self._n_alone = 0  # pieces that were a step by themselves (`alike`)
        self.reevaluated: Counter[str] = Counter()  # tokens that memory had held, by reason

    def add(self, sequence: Sequence) -> None:
        """Let a sequence wait for its turn."""
        insort(self.waiting, sequence, key=_order)

    def plan(self) -> list[Chunk]:
        """The tokens of the next step: at most n_batch, and room for all of them. Empty: nothing to do."""
        self.now += 1
        if self._took is not None:
            seconds, guessed = self._took
            self.guesser.took(self._n_said, seconds, guessed=guessed)
        self._took, self._n_said = None, 0
        self.admitted, self.preempted = [], []
        again, self._again = self._again, []
        if again and not self.waiting and len(again) <= self.slots.cells.n_free:
            self._turns.go_on()
            for chunk in again:
                chunk.go_on()
            return again
        if self.waiting:
            self._admit()
        self._turns.next(self.active, self.now)
        guesses = self._guess() if self.guesser and not self._was_full else {}
        while True:
            chunks = self._fill(guesses)
            if sum([len(chunk.tokens) for chunk in chunks]) <= self.slots.cells.n_free:
                return chunks
            if any(chunk.guess for chunk in chunks):
                guesses = {}  # none is worth a preemption
            elif not self._give_room():
                raise AssertionError("one sequence alone has no room")

    def learn(self, chunks: list[Chunk], seconds: float) -> None:
        """Note what a step took, and whose prompt has grown so deep that a few of its tokens take long.

        Its tokens have been accepted by now.

        Attention over what is there already grows with depth, weights don't. The processor computes it token by
        token, and for 64 together in a fraction of the time (`cell_s`, `tiled_cell_s` in `bench calibrate --json`).
        """
        if chunks[0].span is not None:
            return  # encoded, too, which tells nothing of tokens
        n_tokens = sum([len(chunk.tokens) for chunk in chunks])
        self.pace.learn(n_tokens, seconds)
        is_one_each = n_tokens == len(chunks) == len(self.active) and not any([c.sequence.ended for c in chunks])
        holds = not is_one_each and any(s.n_generated and s.served_at < self.now for s in self._turns.of(self.active))
        self._held_s = self._held_s + seconds if holds else 0.0
        if n_tokens == len(chunks) and not self.guesser:
            if is_one_each and all([chunk.row and not chunk.all_rows for chunk in chunks]):
                self._again = chunks
            return  # a token of each answer, as in most steps: nothing more is learned of them
        # Whose first token it was, or would have been: nothing may have been asked for.
        prompts = [chunk for chunk in chunks if chunk.sequence.n_generated <= chunk.row]
        if not prompts and self.guesser:
            self._took = seconds, any(chunk.guess for chunk in chunks)
        for chunk in prompts if len(prompts) < len(chunks) else ():
            sequence = chunk.sequence
            if MIN_CHUNK // 2 <= len(chunk) < TILE:
                sequence.first_step_s = sequence.first_step_s or seconds
                sequence.is_deep = sequence.is_deep or seconds > DEEP * sequence.first_step_s

    def done(self, chunks: list[Chunk]) -> None:
        """Note that the chunks have been evaluated."""
        for chunk in chunks:
            self.slots.extend(self.slots.all[chunk.slot], chunk.tokens, self.now)
            chunk.sequence.n_done = chunk.end
            chunk.sequence.served_at = self.now
            if chunk.all_rows:
                chunk.sequence.n_scored = max(chunk.sequence.n_scored, chunk.end)
        self._was_span = chunks[0].span is not None
        self._n_alone += len(chunks) == 1 and chunks[0].start < chunks[0].sequence.n_prompt
        self.n_max = self.layout.n_batch
        self._was_full = False

    def relieve(self) -> Sequence | None:
        """Make room, since memory had none for the last plan; the sequence that cannot be helped, if it comes to that.

        Cells are counted exactly, so this is for memory that counts otherwise, such as a window's.
        """
        self._was_full = True
        if self._give_room():
            return None
        self.n_max = min(self.n_max, max(map(len, self._fill({})), default=1)) // 2
        if self.n_max:
            return None
        self.n_max = self.layout.n_batch
        return self._turns.of(self.active)[0]

    def followers(self, leader: Sequence) -> Iterator[Sequence]:
        """Give places to those that wait for the leader's prompt, which is just done: its logits are theirs too."""
        for sequence in [s for s in self.waiting if s.leader is leader and s.n_generated == 0]:
            slot = self.slots.next_free()
            if slot is None:
                return
            self.slots.cut(slot, 0)
            assert leader.slot is not None
            self.slots.copy(self.slots.all[leader.slot], slot, leader.n_prompt)
            self.slots.own(slot, sequence, self.now)
            sequence.n_cached, sequence.reevaluated, sequence.began = leader.n_cached, leader.reevaluated, True
            self._enter(sequence)
            yield sequence

    def accept(self, sequence: Sequence, token: int) -> None:
        """Append the token that was sampled behind all of a sequence's tokens."""
        assert sequence.n_pending == 0
        sequence.tokens.append(token)
        self._n_said += 1

    def confirm(self, sequence: Sequence, *, right: bool) -> None:
        """Note that the token just accepted was guessed, and so is in memory; or that no further guess is right."""
        assert sequence.slot is not None
        if right:
            sequence.n_done += 1
            return
        slot = self.slots.all[sequence.slot]
        if self.layout.kind == "window" and not self.slots.memory.resumable(slot.id, sequence.n_done):
            sequence.n_done = 0  # the window has dropped what would be looked at
        self.slots.cut(slot, sequence.n_done)

    def finish(self, sequence: Sequence) -> None:
        """End a sequence, wherever it is. What memory holds of it stays there for others."""
        self._again = []
        sequence.ended = True
        self.guesser.forget(sequence)
        if sequence.slot is None:
            self.waiting.remove(sequence)
        else:
            self.slots.release(sequence)
            self.active.remove(sequence)

    def reset(self) -> None:
        """Forget what memory held of idle slots and sequences: after a failure nothing of it can be trusted."""
        for slot in self.slots.all:
            assert slot.owner is None
            self.slots.cut(slot, 0)

    # Admission.

    def _admit(self) -> None:
        for sequence in list(self.waiting):
            if self.slots.next_free() is None:
                return
            if self._waits(sequence):
                continue
            found = self._find(sequence)
            if self._may_reuse(sequence) and self._is_being_computed(sequence, found.n):
                continue
            is_shared = found.slot is not None and found.slot.owner is not None
            if not self._has_room(len(sequence.tokens) - (found.n if is_shared else 0)):
                return  # those behind may not overtake it, or it would wait for ever
            self.slots.take(sequence, found, self.now)
            self._note(sequence, found)
            self._enter(sequence)

    def _find(self, sequence: Sequence) -> Found:
        if not sequence.cache_prompt:
            return NOTHING
        found = self.slots.find(sequence)
        if found.n and not self._may_reuse(sequence):
            return Found(slot=None, n=0, n_missed=found.n + found.n_missed, reason=Reuse.SCORES)
        return found

    def _may_reuse(self, sequence: Sequence) -> bool:
        """Whether what memory holds of its prompt may be used: what is scored was read in pieces of other lengths."""
        return sequence.may_reuse and not (self.layout.block and sequence.is_of_scores)

    def _waits(self, sequence: Sequence) -> bool:
        """Whether another sequence is about to have computed what this one can share."""
        leader = sequence.leader
        if leader is not None and not leader.ended and leader.n_generated == 0:
            return True
        other = sequence.waits_for
        if other is not None and not other.ended and other.slot is not None and other.n_done < sequence.waits_until:
            return True
        sequence.waits_for = None
        return False

    def _is_being_computed(self, sequence: Sequence, n_found: int) -> bool:
        """Whether a prompt under way will hold much more of this one than memory does now; then it is waited for."""
        if self.layout.kind != "full":
            return False
        for other in self.active:
            if other.n_pending <= 1 or other.adapters != sequence.adapters:
                continue
            n = sequence.without_part(min(common_prefix(other.tokens, sequence.tokens), len(sequence.tokens) - 1))
            if self.layout.block:
                n = whole(whole(n, len(sequence.tokens)), len(other.tokens))
            if n > max(other.n_done, n_found + MIN_CHUNK) and self.slots.is_worth_copying(n):
                sequence.waits_for, sequence.waits_until = other, n
                return True
        return False

    def _has_room(self, n_tokens: int) -> bool:
        """Whether so many more tokens fit beside what is under way, with a token's room for each answer."""
        if not self.active or not self.layout.unified:
            return True
        coming = sum(s.n_pending + 1 for s in self.active)
        return self.slots.cells.n_busy + coming + n_tokens + 1 <= self.slots.cells.n_cells

    def _note(self, sequence: Sequence, found: Found) -> None:
        """Remember what of a sequence's tokens was there, and why no more."""
        if sequence.n_preempted:
            self.reevaluated[Reuse.PREEMPTED] += len(sequence.tokens) - found.n
            sequence.reevaluated = Reuse.PREEMPTED
        elif found.n_missed:
            self.reevaluated[found.reason] += found.n_missed
            sequence.reevaluated = found.reason
        if not sequence.began:
            self.n_cached += found.n
            sequence.n_cached, sequence.began = found.n, True
            self.admitted.append(sequence)

    def _enter(self, sequence: Sequence) -> None:
        self.waiting.remove(sequence)
        insort(self.active, sequence, key=_order)

    # Filling a step.

    def _rows_and_prompts(self) -> tuple[list[Sequence], list[Sequence]]:
        """Whose next token is in the step, and whose prompts may be."""
        rows, prompts, is_alone = list[Sequence](), list[Sequence](), self.layout.block > 0
        for s in self._turns.of(self.active):
            is_prompt = len(s.tokens) - s.n_done > 1 or (s.wants_all_rows and s.is_scoring)
            (prompts if is_prompt or (is_alone and not s.n_generated) else rows).append(s)
        if is_alone and prompts:
            return ([], [self._next_alone(prompts)]) if self._is_turn_of_prompts(rows, len(prompts)) else (rows, [])
        if len(rows) > self.n_max:
            rows = sorted(rows, key=lambda s: s.served_at)[: self.n_max]
        if prompts and self._is_crowd(prompts, len(rows)):
            rows = [s for s in rows if not s.n_generated]  # whose prompt's last token it is
        return rows, prompts

    def _is_turn_of_prompts(self, rows: list[Sequence], n_prompts: int) -> bool:
        """Where prompts are read by themselves: whether one goes before the answers' next tokens.

        One piece does, then as many as take no longer than those who wait for their first token are worth.
        """
        fixed, each = self.pace.line
        wait_s = self._held_s + fixed + each * PIECE
        return not rows or not self._held_s or wait_s <= self.pace.target_s * n_prompts

    def _next_alone(self, prompts: list[Sequence]) -> Sequence:
        """The oldest and the one that is done soonest take turns."""
        return min(prompts, key=lambda s: s.n_pending) if self._n_alone % 2 else prompts[0]

    def _is_crowd(self, prompts: list[Sequence], n_rows: int) -> bool:
        """Whether so many prompts came together that answers wait until they are read, for some time at most.

        Beside prompts they would be a pass over the weights for few tokens, and behind them they go with the crowd's.
        """
        n_pending, n = sum(s.n_pending for s in prompts), len(prompts)
        if n_pending > self.n_max - n_rows:
            is_worth_it = self.pace.fit(n, n_pending)
        else:  # they would wait for this step anyway; those that have waited do so for the rest of the crowd, too
            is_worth_it = (n > n_rows or self._held_s > 0) and self.pace.n_prompt(n_rows, n, n_pending) >= n_pending
        return is_worth_it and self._held_s < self.pace.target_s * self.layout.n_slots

    @property
    def _n_outputs(self) -> int:
        """Rows of logits beside one for each answer."""
        return self.layout.n_outputs - sum(not s.is_scoring for s in self._turns.of(self.active))

    def _guess(self) -> Guesses:
        """What may follow answers' next tokens, as far as rows of logits and cells go."""
        rows, _ = self._rows_and_prompts()
        n_room = min(self._n_outputs, self.n_max - len(rows), self.slots.cells.n_free - len(rows))
        return self.guesser.guess(rows, n_room)

    def _fill(self, guesses: Guesses) -> list[Chunk]:
        rows, prompts = self._rows_and_prompts()
        if any([s.spans for s in prompts]):
            spans = [s for s in prompts if s.next_span is not None]
            prompts = [s for s in prompts if s.next_span is None]
            if spans and not ((rows or prompts) and self._was_span):  # others' tokens go between two images
                return [_image(spans[0])]
        chunks = [_chunk(s, 1, guesses.get(s, ())) for s in rows]
        if prompts:
            chunks += self._pieces(prompts, len(rows), sum(map(len, chunks)))
        # In a divided cache llama.cpp evaluates together what lies in slots one behind the other, in this order; each
        # step back or gap is another pass over the weights. Source: llama.cpp 0c1e570 src/llama-batch.cpp, split_equal.
        chunks.sort(key=_slot)
        return chunks

    def _pieces(self, prompts: list[Sequence], n_answers: int, n_rows: int) -> Iterator[Chunk]:
        """As much of prompts as goes with answers and their rows."""
        if self.layout.block:
            (s,) = prompts
            n_max = self.layout.n_outputs if s.is_of_scores else LONGEST
            yield _chunk(s, piece_end(s.n_done, len(s.tokens), n_max) - s.n_done)
            return
        n_outputs = self._n_outputs - (n_rows - n_answers)
        n_pending = sum(s.n_pending for s in prompts)
        least = TILE * min(2, len(prompts)) if any(s.is_deep for s in prompts) else MIN_CHUNK  # the oldest gets half
        n_budget = min(self.pace.n_prompt(n_rows, len(prompts), n_pending, least), self.n_max - n_rows)
        for sequence, n in self._shares(prompts, n_budget):
            if sequence.is_scoring:
                n = min(n, n_outputs)
                n_outputs -= n
            if n:
                yield _chunk(sequence, n)

    def _shares(self, prompts: list[Sequence], n_budget: int) -> Iterator[tuple[Sequence, int]]:
        """How many tokens each prompt gets."""
        if not prompts or n_budget <= 0:
            return
        oldest, *others = prompts
        n_oldest = min(oldest.n_pending, (n_budget + 1) // 2)
        n_left = n_budget - n_oldest
        for sequence in _shorter_first(others):
            n = min(sequence.n_pending, n_left)
            n_left -= n
            if n:
                yield sequence, n
        yield oldest, min(oldest.n_pending, n_oldest + n_left)

    def _give_room(self) -> bool:
        """Forget what an idle slot holds, or else preempt the youngest; False when neither can be."""
        if self.slots.evict():
            return True
        if len(self.active) < 2:
            return False
        youngest = self.active.pop()
        self.slots.cut(self.slots.release(youngest), 0)
        youngest.n_done = 0
        youngest.n_preempted += 1
        self.preempted.append(youngest)
        if youngest in self.admitted:
            self.admitted.remove(youngest)
            youngest.began = False
        self.add(youngest)
        return True


def _order(sequence: Sequence) -> tuple[int, int]:
    return sequence.order, sequence.index


_slot = attrgetter("slot")
_n_pending = attrgetter("n_pending")


def _shorter_first(prompts: list[Sequence]) -> list[Sequence]:
    """By length, and those that are alike, the longest at most twice as long as the shortest, as they came.

    As they came they lie in neighbouring slots, and of the same wait nobody's is much longer for it.
    """
    longest, alike = 0, dict[Sequence, int]()
    for sequence in sorted(prompts, key=_n_pending):
        if sequence.n_pending > longest:
            longest = 2 * sequence.n_pending
        alike[sequence] = longest
    return sorted(prompts, key=alike.__getitem__)


def _image(sequence: Sequence) -> Chunk:
    """The image or sound that is next of a sequence: evaluated as a whole, and nothing is sampled behind it."""
    span = sequence.next_span
    assert span is not None
    assert sequence.slot is not None
    return Chunk(
        sequence=sequence, slot=sequence.slot, start=span.start, end=span.end,
        tokens=sequence.tokens[span.start : span.end], n_rows=0, row=False, span=span,
    )  # fmt: skip


def _chunk(sequence: Sequence, n: int, guess: tuple[int, ...] = ()) -> Chunk:
    assert sequence.slot is not None
    start, end = sequence.n_done, sequence.n_done + n
    if sequence.spans:
        end = sequence.up_to_span(end)
    all_rows = sequence.wants_all_rows and sequence.is_scoring
    row = end == len(sequence.tokens)
    tokens = sequence.tokens[start:end]
    tokens.extend(guess)
    return Chunk(
        sequence=sequence, slot=sequence.slot, start=start, end=end, tokens=tokens,
        n_rows=len(tokens) if all_rows else row + len(guess), row=row, all_rows=all_rows, guess=guess,
    )  # fmt: skip
