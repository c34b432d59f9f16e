"""The engine's loop: admit, evaluate, sample, hand out, step by step, in the one thread that owns the context.

It hands out tokens with their bytes and knows neither text nor stop strings: whoever is given the reports does, and
cancels.
"""

import queue
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from typing import Final

from server.engine.backend import Backend, Outcome, Reading
from server.engine.counters import Counters
from server.engine.errors import EngineError
from server.engine.events import Fault
from server.engine.frames import Cancel, Command, Embed, Step, Submit
from server.engine.loop.jobs import Jobs
from server.engine.loop.texts import FULL, Pass, Texts
from server.engine.loop.vitality import Sign
from server.engine.scheduler.pace import Pace
from server.engine.scheduler.scheduler import Scheduler
from server.engine.scheduler.sequence import Chunk

COUNTERS_EVERY_S: Final = 0.5
NO_ROOM: Final = "memory has no room for it, even with nothing beside it"


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
        self.scheduler = Scheduler(layout, backend, Pace(target_s, layout.n_batch), backend.guesser)
        self.counters = Counters(n_cells=self.scheduler.slots.cells.n_cells)
        self._inbox: queue.SimpleQueue[Command | None] = queue.SimpleQueue()
        self._jobs = Jobs(backend, self.scheduler, self.counters)
        self._texts = Texts(backend.n_texts, min(FULL, layout.n_batch))
        self._unwanted: set[int] = set()  # requests that nobody waits for, as `put` has seen
        self._running: frozenset[int] = frozenset()  # requests of the step that is being evaluated
        self._reading: tuple[Pass, Reading] | None = None  # texts of which some pieces have been embedded
        self._reading_pace = Pace(target_s, layout.n_batch)
        self._lock = threading.Lock()  # over what is unwanted, and while a step begins
        self._closing = threading.Event()
        self._counted_at = 0.0
        self._guess_s = 0.0  # of the step that is being evaluated
        self._n_turns = 0
        self._is_waiting = True

    # For any thread.

    @property
    def sign(self) -> Sign | None:
        """Another one whenever something has moved; None: it waits for work."""
        if self._is_waiting:
            return None
        n_nodes = self._backend.n_nodes
        return self._n_turns, time.process_time() if n_nodes is None else n_nodes

    def put(self, command: Command) -> None:
        """Hand in a command. A step whose requests are all cancelled is ended in the middle, where that can be done."""
        if isinstance(command, Cancel) and command.answer is None:
            with self._lock:
                self._unwanted.add(command.id)
                self._abort_if_unwanted()
        self._inbox.put(command)

    def watch(self, give_up: Callable[[int], object]) -> None:
        """Have `give_up` called with the request for which the choice of a token takes too long."""
        self._jobs.patience.watch(give_up)

    def close(self) -> None:
        """End the loop: what runs is cancelled, what waits fails."""
        with self._lock:
            self._closing.set()
            self._backend.abort(True)
        self._inbox.put(None)

    def _abort_if_unwanted(self) -> None:
        running = self._running  # once: the loop's thread may put an empty one in its place
        if running and self._unwanted >= running:
            self._backend.abort(True)

    # The loop's thread.

    def run(self) -> None:
        """Work until closed."""
        while not self._closing.is_set():
            self.turn(wait=not self._jobs and not self._texts)
        self._jobs.close()
        self._send()

    def turn(self, *, wait: bool = False) -> None:
        """One round: what has come in, a step, what it brought. `wait`: until something comes in."""
        if wait or not self._inbox.empty():
            self._is_waiting = wait
            self._take_commands(wait=wait)
        self._is_waiting = False
        self._n_turns += 1
        self._jobs.expire()
        if not self._closing.is_set() and self._jobs:
            self._step()
        if not self._closing.is_set() and self._texts:
            self._embed()
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
        if command is None:
            return
        try:
            match command:
                case Submit(id, request):
                    self._jobs.submit(id, request)
                case Cancel(id, index):
                    with self._lock:
                        self._unwanted.discard(id)
                    self._jobs.cancel(id, index)
                    self._texts.cancel(id)
                case Embed():
                    self._texts.add(command)
        except ValueError as error:
            self._jobs.fail(command.id, str(error), "request")
        except Exception as error:  # whatever it is ends this request, not the engine
            self._explain(error)
            self._jobs.fail(command.id, str(error) or type(error).__name__, "engine")

    def _embed(self) -> None:
        """Embed a piece of a pass of texts, so that those who read answers wait for one and not for whole texts."""
        taken, reading = self._reading or (None, None)
        if taken is None or not self._texts.wait_for(taken):
            taken = self._texts.take()
            first = taken.owners[0].command
            reading = self._backend.embed(taken.prompts, first.pooling, first.adapters, self._n_piece)
        assert reading is not None
        self._reading = taken, reading
        self._begin(asked.command.id for asked in taken.owners)
        began = time.perf_counter()
        try:
            n_tokens = next(reading)
        except StopIteration as over:
            n_tokens, self._reading = taken.n_left, None
            self.counters.n_texts += len(taken.prompts)
            self._jobs.reports += self._texts.done(taken, over.value)
        except Exception as error:
            self._running, self._reading = frozenset(), None
            fault: Fault = "request" if isinstance(error, ValueError) else "engine"
            if fault == "engine":
                self._explain(error)
            for id in self._texts.fail(taken):
                self._jobs.fail(id, str(error) or type(error).__name__, fault)
            return
        seconds = time.perf_counter() - began
        self._running = frozenset()
        taken.n_left -= n_tokens
        self._reading_pace.learn(n_tokens, seconds)
        self.counters.n_steps += 1
        self.counters.decode_s += seconds
        self.counters.n_prompt_tokens += n_tokens

    def _n_piece(self) -> int:
        """How many tokens of a text may be embedded, so that those who read answers don't wait for long."""
        n_left = self._reading[0].n_left if self._reading else 0
        return self._reading_pace.n_prompt(1 if self._jobs else 0, 1, n_left)

    def _step(self) -> None:
        try:
            chunks = self._plan()
            self._jobs.planned()
            if self.scheduler.admitted:
                self._send()  # a long prompt's reader learns now that it has begun
            if not chunks:
                return
            outcome, seconds = self._evaluate(chunks)
            match outcome:
                case Outcome.DONE:
                    self._jobs.hand_out(chunks)
                    self._send()  # before all that can wait: others begin with it, on another core
                    self.scheduler.learn(chunks, seconds + self._guess_s)
                case Outcome.FULL:
                    self.counters.n_full += 1
                    hopeless = self.scheduler.relieve()
                    if hopeless is not None:
                        self._jobs.fail(hopeless.id, NO_ROOM, "engine")
                case Outcome.ABORTED:
                    self.counters.n_aborts += 1
                    self._forget_parts(chunks)
        except Exception as error:  # whatever it is ends what was under way, not the engine
            self._explain(error)
            for id in {sequence.id for sequence in self.scheduler.active}:
                self._jobs.fail(id, str(error) or type(error).__name__, "engine")
            self.scheduler.reset()

    def _plan(self) -> list[Chunk]:
        """What goes into the step, which the time for guesses belongs to: readers wait for it, too."""
        began = time.perf_counter()
        chunks = self.scheduler.plan()
        self._guess_s = time.perf_counter() - began if self._backend.guesser else 0.0
        self.counters.guess_s += self._guess_s
        return chunks

    def _explain(self, error: Exception) -> None:
        if not isinstance(error, EngineError):
            self._warn("unexpected error in the engine:\n" + traceback.format_exc())

    def _evaluate(self, chunks: list[Chunk]) -> tuple[Outcome, float]:
        self._begin(chunk.sequence.id for chunk in chunks)
        started_at = time.perf_counter()
        outcome = self._backend.decode(chunks)
        seconds = time.perf_counter() - started_at
        self._running = frozenset()
        if not self.counters.n_steps:
            self._counted_at = 0.0  # it is counted with what it brings: a crash behind it is not one in the first step
        self.counters.n_steps += 1
        self.counters.decode_s += seconds
        return outcome, seconds

    def _begin(self, ids: Iterable[int]) -> None:
        """A step of these requests comes: it is ended in the middle if nobody waits for any."""
        with self._lock:
            self._running = frozenset(ids)
            self._backend.abort(self._closing.is_set())  # what ended the step before is over
            self._abort_if_unwanted()

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

    # Reports.

    def _send(self) -> None:
        is_idle = not self._jobs
        if not self._jobs.reports and not is_idle:
            return
        now = time.perf_counter()
        counters = None
        if is_idle or now - self._counted_at > COUNTERS_EVERY_S:
            counters, self._counted_at = self._count(), now
        reports, self._jobs.reports = self._jobs.reports, []
        self._deliver(Step(now, reports, counters))

    def _count(self) -> Counters:
        scheduler, counters = self.scheduler, self.counters
        cells = scheduler.slots.cells
        counters.n_cached_tokens = scheduler.n_cached
        counters.reevaluated = scheduler.reevaluated
        counters.n_active, counters.n_waiting = len(scheduler.active) + len(self._texts), len(scheduler.waiting)
        counters.n_cells_used, counters.n_cells_busy = cells.n_used, cells.n_busy
        counters.n_tokens_max = max(counters.n_tokens_max, cells.n_used)
        peaks = self._backend.peaks
        counters.n_batch_max, counters.n_chains_max = peaks.n_batch, peaks.n_chains
        counters.n_embedders, counters.n_embedded_max = peaks.n_embedders, peaks.n_embedded
        return counters.copy()
