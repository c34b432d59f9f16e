"""The engine's loop: admit, evaluate, sample, hand out, step by step, in the one thread that owns the context.

It hands out tokens with their bytes and knows neither text nor stop strings: whoever reads the reports does, in another
thread or process, and cancels.
"""

import queue
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from server.engine.backend import Backend, Outcome, as_tokens
from server.engine.counters import Counters
from server.engine.errors import EngineError
from server.engine.frames import (
    Began,
    Broke,
    Cancel,
    Command,
    Embed,
    Embedded,
    Ended,
    Evaluated,
    Preempted,
    Report,
    Said,
    Scored,
    Step,
    Submit,
)
from server.engine.protocol import FinishReason, GenerationRequest
from server.engine.runner import Chooser
from server.engine.scheduler.pace import Pace
from server.engine.scheduler.scheduler import Scheduler
from server.engine.scheduler.sequence import Chunk, Sequence
from server.engine.scores import token_info

COUNTERS_EVERY_S: Final = 0.1
NAN: Final = "the model's logits are not numbers (NaN or infinite): a broken or unsuited model file"


@dataclass(slots=True, eq=False)
class Job:
    """A request under way: its sequences that have not ended, and what chooses their tokens."""

    request: GenerationRequest
    sequences: dict[int, Sequence]
    choosers: dict[int, Chooser] = field(default_factory=dict)
    first_token_at: float = 0.0
    n_scored: int = 0


class EngineLoop:
    """Runs requests on a backend. `run` is the thread; `put` and `close` are for the others.

    Args:
        backend: what computes.
        deliver: gets what each step brought, in the loop's thread.
        target_s: how long a step with prompts in it should take at most, where somebody reads.
        warn: gets lines that a user should see.
    """

    def __init__(
        self,
        backend: Backend,
        deliver: Callable[[Step], None],
        *,
        target_s: float,
        warn: Callable[[str], None] = lambda message: None,
    ) -> None:
        self._backend = backend
        self._deliver = deliver
        self._warn = warn
        layout = backend.layout
        self.scheduler = Scheduler(layout, backend, Pace(target_s, layout.n_batch))
        self.counters = Counters(n_cells=self.scheduler.slots.cells.n_cells)
        self._inbox: queue.SimpleQueue[Command | None] = queue.SimpleQueue()
        self._jobs: dict[int, Job] = {}
        self._reports: list[Report] = []
        self._unwanted: set[int] = set()  # requests that nobody waits for, as `put` has seen
        self._running: frozenset[int] = frozenset()  # requests of the step that is being evaluated
        self._lock = threading.Lock()  # over the two above
        self._closing = threading.Event()
        self._n_arrived = 0
        self._counted_at = 0.0
        self._pieces: dict[tuple[int, bool], bytes] = {}

    # For any thread.

    def put(self, command: Command) -> None:
        """Hand in a command. A step whose requests are all cancelled is ended in the middle, where that can be done."""
        if isinstance(command, Cancel) and command.answer is None:
            with self._lock:
                self._unwanted.add(command.id)
                self._abort_if_unwanted()
        self._inbox.put(command)

    def close(self) -> None:
        """End the loop: what runs is cancelled, what waits fails."""
        with self._lock:
            self._closing.set()
            self._backend.abort(True)
        self._inbox.put(None)

    def _abort_if_unwanted(self) -> None:
        if self._running and self._running <= self._unwanted:
            self._backend.abort(True)

    # The loop's thread.

    def run(self) -> None:
        """Work until closed."""
        while not self._closing.is_set():
            self.turn(wait=not self._jobs)
        for id, job in list(self._jobs.items()):
            for sequence in list(job.sequences.values()):
                if sequence.slot is None and not sequence.began:
                    self._break(id, "the server is shutting down", "closed")
                    break
                self._end(job, sequence, "cancelled")
        self._send()

    def turn(self, *, wait: bool = False) -> None:
        """One round: what has come in, a step, what it brought. `wait`: until something comes in."""
        self._take_commands(wait=wait)
        if not self._closing.is_set() and self._jobs:
            self._step()
        self._send()

    def _take_commands(self, *, wait: bool) -> None:
        try:
            command = self._inbox.get(block=wait)
            while True:
                self._obey(command)
                command = self._inbox.get_nowait()
        except queue.Empty:
            return

    def _obey(self, command: Command | None) -> None:
        match command:
            case Submit(id, request):
                self._submit(id, request)
            case Cancel(id, index):
                self._unwanted.discard(id)
                job = self._jobs.get(id)
                for sequence in list(job.sequences.values()) if job else ():
                    if job is not None and index in (None, sequence.index):
                        self._end(job, sequence, "cancelled")
            case Embed(id, prompts, pooling):
                try:
                    rows = self._backend.embed(prompts, pooling)
                    self._reports.append(Embedded(id, tuple(map(tuple, rows))))
                except (EngineError, ValueError) as error:
                    fault = "request" if isinstance(error, ValueError) else "engine"
                    self._reports.append(Broke(id, str(error), fault))  # type: ignore[arg-type]
            case None:
                pass

    def _submit(self, id: int, request: GenerationRequest) -> None:
        n_prompt, n_ctx_seq = len(request.prompt), self._backend.layout.n_ctx_seq
        n_asked = n_ctx_seq + 1 if request.max_tokens is None else n_prompt + request.max_tokens
        job = Job(request, {})
        leader: Sequence | None = None
        for index in range(request.n):
            job.sequences[index] = sequence = Sequence(
                id=id,
                index=index,
                order=self._n_arrived,
                tokens=as_tokens(request.prompt),
                n_prompt=n_prompt,
                n_max=min(n_asked, n_ctx_seq + 1),
                cache_prompt=request.cache_prompt or index > 0,
                wants_all_rows=request.n_prompt_logprobs is not None and index == 0,
                leader=leader,
            )
            leader = leader or sequence
        self._n_arrived += 1
        try:
            for index in job.sequences:
                job.choosers[index] = self._backend.chooser(request.sampling, index)
                job.choosers[index].remember(request.prompt)
        except ValueError as error:
            for chooser in job.choosers.values():
                chooser.close()
            self._reports.append(Broke(id, str(error), "request"))
            return
        self._jobs[id] = job
        for sequence in job.sequences.values():
            self.scheduler.add(sequence)

    def _step(self) -> None:
        chunks = self.scheduler.plan()
        for sequence in self.scheduler.admitted:
            if sequence.index == 0:
                self._reports.append(Began(sequence.id, sequence.n_cached, sequence.reevaluated))
        for sequence in self.scheduler.preempted:
            self.counters.n_preemptions += 1
            self._reports.append(Preempted(sequence.id, sequence.index))
        if self.scheduler.admitted:
            self._send()  # a long prompt's reader learns now that it has begun
        if not chunks:
            return
        try:
            outcome = self._evaluate(chunks)
            match outcome:
                case Outcome.DONE:
                    self._hand_out(chunks)
                case Outcome.FULL:
                    self.counters.n_full += 1
                    hopeless = self.scheduler.relieve()
                    if hopeless is not None:
                        self._break(hopeless.id, "memory has no room for it, even with nothing beside it", "engine")
                case Outcome.ABORTED:
                    self.counters.n_aborts += 1
                    self._forget_parts(chunks)
        except Exception as error:  # whatever it is ends what was under way, not the engine
            if not isinstance(error, EngineError):
                self._warn("unexpected error in the engine:\n" + traceback.format_exc())
            for sequence in list(self.scheduler.active):
                if sequence.id in self._jobs:
                    self._break(sequence.id, str(error) or type(error).__name__, "engine")
            self.scheduler.reset()

    def _evaluate(self, chunks: list[Chunk]) -> Outcome:
        with self._lock:
            self._running = frozenset(chunk.sequence.id for chunk in chunks)
            self._backend.abort(self._closing.is_set())
            self._abort_if_unwanted()
        started_at = time.perf_counter()
        outcome = self._backend.decode(chunks)
        seconds = time.perf_counter() - started_at
        with self._lock:
            self._running = frozenset()
        n_tokens = sum(map(len, chunks))
        self.counters.n_steps += 1
        self.counters.decode_s += seconds
        if outcome is Outcome.DONE:
            self.scheduler.pace.learn(n_tokens, seconds)
        return outcome

    def _forget_parts(self, chunks: list[Chunk]) -> None:
        """Nobody waits for any of it, and memory may have any part of it: keep what was there before."""
        for chunk in chunks:
            slot = self.scheduler.slots.all[chunk.slot]
            if self._backend.layout.kind == "recurrent":
                self._backend.keep(slot.id, 0)
                self.scheduler.slots.cut(slot, 0)
                chunk.sequence.n_done = 0
            else:
                self._backend.keep(slot.id, len(slot.tokens))

    def _hand_out(self, chunks: list[Chunk]) -> None:
        """Sample behind every finished chunk, and report."""
        self.scheduler.done(chunks)
        row = 0
        for chunk in chunks:
            sequence = chunk.sequence
            job = self._jobs.get(sequence.id)
            last_row = row + (len(chunk) - 1 if chunk.all_rows else 0)
            if job is not None and not sequence.ended:  # another answer to the same prompt may have failed it
                if chunk.start < sequence.n_prompt:
                    self._count_prompt(chunk, job)
                if chunk.all_rows:
                    self._score(chunk, job, row)
                if chunk.row:
                    for each in (sequence, *self.scheduler.followers(sequence)):
                        self._sample(job, each, last_row)
            row = last_row + (chunk.row or chunk.all_rows)

    def _count_prompt(self, chunk: Chunk, job: Job) -> None:
        self.counters.n_prompt_tokens += min(chunk.end, chunk.sequence.n_prompt) - chunk.start
        if job.request.report_progress and chunk.sequence.index == 0:
            self._reports.append(Evaluated(chunk.sequence.id, min(chunk.end, chunk.sequence.n_prompt)))

    def _score(self, chunk: Chunk, job: Job, row: int) -> None:
        """Report log-probabilities of the tokens behind each of the chunk's, those reported before left out."""
        request, n_top = job.request, job.request.n_prompt_logprobs or 0
        start = chunk.start
        infos = []
        for position in range(max(start + 1, job.n_scored), min(chunk.end + 1, len(request.prompt))):
            logits = self._backend.logits(row + position - 1 - start)
            infos.append(token_info(logits, request.prompt[position], n_top, self._special_piece))
        if infos:
            first = max(start + 1, job.n_scored)
            self._reports.append(Scored(chunk.sequence.id, first, tuple(infos)))
            job.n_scored = first + len(infos)

    def _sample(self, job: Job, sequence: Sequence, row: int) -> None:
        if sequence.ended:
            return
        request = job.request
        if request.max_tokens == 0:
            self._end(job, sequence, "length")
            return
        token = job.choosers[sequence.index].sample(row)
        if token is None:
            self._break(sequence.id, NAN, "engine")
            return
        self.scheduler.accept(sequence, token)
        self.counters.n_generated_tokens += 1
        self.counters.n_rows += 1
        job.first_token_at = job.first_token_at or time.perf_counter()
        ends = self._backend.words.ends_generation(token)
        reason: FinishReason | None = "stop" if ends else "length" if sequence.is_over else None
        if reason is None and request.max_generation_s is not None:
            reason = "length" if time.perf_counter() - job.first_token_at > request.max_generation_s else None
        piece = b"" if ends and not request.show_special else self._piece(token, special=request.show_special)
        info = None
        if request.n_logprobs is not None:
            info = token_info(self._backend.logits(row), token, request.n_logprobs, self._special_piece)
        self._reports.append(Said(sequence.id, sequence.index, token, piece, info, ends, reason))
        if reason is not None:
            self._drop(job, sequence, reason)

    def _special_piece(self, token: int) -> bytes:
        return self._piece(token, special=True)

    def _piece(self, token: int, *, special: bool) -> bytes:
        key = token, special
        piece = self._pieces.get(key)
        if piece is None:
            piece = self._pieces[key] = self._backend.words.piece(token, special=special)
        return piece

    # Ends.

    def _end(self, job: Job, sequence: Sequence, reason: FinishReason) -> None:
        self._reports.append(Ended(sequence.id, sequence.index, reason))
        self._drop(job, sequence, reason)

    def _break(self, id: int, message: str, fault: str) -> None:
        job = self._jobs[id]
        self._reports.append(Broke(id, message, fault))  # type: ignore[arg-type]
        for sequence in list(job.sequences.values()):
            self._drop(job, sequence, "failed")

    def _drop(self, job: Job, sequence: Sequence, reason: str) -> None:
        """Let go of a sequence that is over."""
        self.scheduler.finish(sequence)
        del job.sequences[sequence.index]
        job.choosers.pop(sequence.index).close()
        self.counters.finished[reason] += 1
        if not job.sequences:
            del self._jobs[sequence.id]
            with self._lock:
                self._unwanted.discard(sequence.id)

    # Reports.

    def _send(self) -> None:
        now = time.perf_counter()
        is_idle = not self._jobs
        if not self._reports and not is_idle:
            return
        counters = None
        if is_idle or now - self._counted_at > COUNTERS_EVERY_S:
            counters, self._counted_at = self._count(), now
        reports, self._reports = self._reports, []
        self._deliver(Step(now, reports, counters))

    def _count(self) -> Counters:
        scheduler, counters = self.scheduler, self.counters
        cells = scheduler.slots.cells
        counters.n_cached_tokens = scheduler.n_cached
        counters.reevaluated = scheduler.reevaluated
        counters.n_active, counters.n_waiting = len(scheduler.active), len(scheduler.waiting)
        counters.n_cells_used, counters.n_cells_busy = cells.n_used, cells.n_busy
        counters.n_tokens_max = max(counters.n_tokens_max, cells.n_used)
        return counters.copy()
