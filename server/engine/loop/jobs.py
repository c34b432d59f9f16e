"""Requests under way: from their prompts to sequences, from rows of logits to what is reported of them."""

import time
from dataclasses import dataclass, field, replace
from typing import Final

from server.engine.backend import Backend, as_tokens
from server.engine.counters import Counters
from server.engine.events import Fault, FinishReason
from server.engine.frames import Began, Broke, Drafted, Ended, Evaluated, Preempted, Report, Said, Scored
from server.engine.loop.deadlines import IN_PROMPT, IN_QUEUE, Deadlines
from server.engine.loop.patience import Patience
from server.engine.loop.scores import drawn_info, token_info
from server.engine.loop.thoughts import ThoughtfulChooser
from server.engine.request import GenerationRequest
from server.engine.runner import Chooser, Words
from server.engine.scheduler.scheduler import Scheduler
from server.engine.scheduler.sequence import Chunk, Sequence, Wish

NAN: Final = "the model's logits are not numbers (NaN or infinite): a broken or unsuited model file"
CLOSED: Final = "the server is shutting down"


@dataclass(slots=True, eq=False)
class Job:
    """A request under way: its sequences that have not ended, and what chooses their tokens."""

    request: GenerationRequest
    sequences: dict[int, Sequence]
    choosers: dict[int, Chooser] = field(default_factory=dict)
    first_token_at: float = 0.0
    n_scored: int = 0
    is_timed: bool = field(init=False)

    def __post_init__(self) -> None:
        self.is_timed = self.request.max_generation_s is not None or self.request.ends_by_s is not None

    @property
    def waits(self) -> bool:
        """Whether nothing of it has begun."""
        return all(sequence.slot is None and not sequence.began for sequence in self.sequences.values())


class Jobs:
    """The requests that are not over, by number, and the reports that are due. For the loop's thread."""

    def __init__(self, backend: Backend, scheduler: Scheduler, counters: Counters) -> None:
        self._backend = backend
        self._scheduler = scheduler
        self._counters = counters
        self._jobs: dict[int, Job] = {}
        self._n_arrived = 0
        self._deadlines = Deadlines()
        self._pieces = Pieces(backend.words)
        self.patience = Patience()
        self.reports: list[Report] = []

    def __len__(self) -> int:
        return len(self._jobs)

    def submit(self, id: int, request: GenerationRequest) -> None:
        """Let a request's sequences wait for their turn. Raises ValueError for what cannot be sampled so."""
        n_prompt, n_ctx_seq = len(request.prompt), self._backend.layout.n_ctx_seq
        n_asked = n_ctx_seq + 1 if request.max_tokens is None else n_prompt + request.max_tokens
        job = Job(request, {})
        leader: Sequence | None = None
        wish = None if request.draft_max == 0 or request.spans else _wish(request)
        for index in range(request.n):
            job.sequences[index] = sequence = Sequence(
                id=id,
                index=index,
                order=self._n_arrived,
                tokens=as_tokens(request.prompt),
                n_prompt=n_prompt,
                spans=request.spans,
                n_max=min(n_asked, n_ctx_seq + 1),
                cache_prompt=request.cache_prompt or index > 0,
                wants_all_rows=request.n_prompt_logprobs is not None and index == 0,
                leader=leader,
                adapters=request.adapters or (),
                wish=wish,
            )
            leader = leader or sequence
        self._n_arrived += 1
        try:
            self.patience.begins(id)
            for index in job.sequences:
                job.choosers[index] = self._chooser(request, index)
                job.choosers[index].remember([token for token in request.prompt if token >= 0])
        except BaseException:
            for chooser in job.choosers.values():
                chooser.close()
            raise
        finally:
            self.patience.ends()
        self._jobs[id] = job
        self._deadlines.add(id, request)
        for sequence in job.sequences.values():
            self._scheduler.add(sequence)

    def _chooser(self, request: GenerationRequest, index: int) -> Chooser:
        then = self._backend.chooser(request.sampling, index)
        if request.thoughts is None:
            return then
        free = then
        if request.sampling.grammar is not None:
            free = self._backend.chooser(replace(request.sampling, grammar=None), index)
        return ThoughtfulChooser(request.thoughts, free, then, self._special_piece)

    def cancel(self, id: int, index: int | None) -> None:
        """End one of a request's answers, or all of them; one that is over is left as it is."""
        job = self._jobs.get(id)
        for sequence in list(job.sequences.values()) if job else ():
            if job is not None and index in (None, sequence.index):
                self._end(job, sequence, "cancelled")

    def expire(self) -> None:
        """End those whose deadline has passed before their turn, or before their first token."""
        if not self._deadlines:
            return
        for id, waiting in self._deadlines.passed(time.perf_counter()):
            job = self._jobs.get(id)
            if job is not None and not job.first_token_at and (job.waits or not waiting):
                self.fail(id, IN_QUEUE if job.waits else IN_PROMPT, "deadline")

    def close(self) -> None:
        """End what runs, fail what waits."""
        for id, job in list(self._jobs.items()):
            if job.waits:
                self.fail(id, CLOSED, "closed")
            else:
                self.cancel(id, None)

    def planned(self) -> None:
        """Report what the scheduler's last plan has admitted and put back."""
        for sequence in self._scheduler.admitted:
            if sequence.index == 0:
                self.reports.append(Began(sequence.id, sequence.n_cached, sequence.reevaluated))
        for sequence in self._scheduler.preempted:
            self._counters.n_preemptions += 1
            self.reports.append(Preempted(sequence.id, sequence.index))

    def hand_out(self, chunks: list[Chunk]) -> None:
        """Sample behind every finished chunk, and report."""
        self._scheduler.done(chunks)
        row = 0
        for chunk in chunks:
            sequence = chunk.sequence
            job = self._jobs.get(sequence.id)
            last_row = row + max(chunk.n_rows - 1, 0)
            if job is not None and not sequence.ended:  # another answer to the same prompt may have failed it
                if chunk.start < sequence.n_prompt:
                    self._count_prompt(chunk, job)
                if chunk.all_rows:
                    self._score(chunk, job, row)
                if chunk.guess:
                    self._verify(chunk, job, row)
                elif chunk.row:
                    followers = () if sequence.n_generated else self._scheduler.followers(sequence)
                    for each in (sequence, *followers):
                        self._sample(job, each, last_row)
            row += chunk.n_rows

    def _verify(self, chunk: Chunk, job: Job, row: int) -> None:
        """Sample behind each token as if none had been guessed, as long as what comes is what was guessed."""
        sequence, n_right, first_report = chunk.sequence, 0, len(self.reports)
        for at in range(chunk.n_rows):
            self._sample(job, sequence, row + at)
            if at == len(chunk.guess) or sequence.n_pending == 0 or sequence.tokens[-1] != chunk.guess[at]:
                break
            n_right += 1
            if sequence.ended:
                break
            self._scheduler.confirm(sequence, right=True)
        if not sequence.ended:
            self._scheduler.confirm(sequence, right=False)
            self._scheduler.guesser.learn(sequence, len(chunk.guess), n_right)
        self._counters.n_drafts += 1
        self._counters.n_drafted += len(chunk.guess)
        self._counters.n_draft_accepted += n_right
        # before the tokens, of which one may be the last
        self.reports.insert(first_report, Drafted(sequence.id, sequence.index, len(chunk.guess), n_right))

    def _count_prompt(self, chunk: Chunk, job: Job) -> None:
        self._counters.n_prompt_tokens += min(chunk.end, chunk.sequence.n_prompt) - chunk.start
        if job.request.report_progress and chunk.sequence.index == 0:
            self.reports.append(Evaluated(chunk.sequence.id, min(chunk.end, chunk.sequence.n_prompt)))

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
            self.reports.append(Scored(chunk.sequence.id, first, tuple(infos)))
            job.n_scored = first + len(infos)

    def _sample(self, job: Job, sequence: Sequence, row: int) -> None:
        if sequence.ended:
            return
        request = job.request
        if request.max_tokens == 0:
            self._end(job, sequence, "length")
            return
        try:
            token = self._choose(job, sequence, row)
        except ValueError as error:
            self.fail(sequence.id, str(error), "request")
            return
        if token is None:
            self.fail(sequence.id, NAN, "engine")
            return
        self._scheduler.accept(sequence, token)
        self._counters.n_generated_tokens += 1
        job.first_token_at = job.first_token_at or time.perf_counter()
        plain, special, ends = self._pieces[token]
        reason: FinishReason | None = "stop" if ends else "length" if sequence.is_over else None
        piece = special if token in request.shown else b"" if ends else plain
        if reason is None and job.is_timed and is_time_over(job, line_ends=b"\n" in piece):
            reason = "length"
        info = None
        if request.n_logprobs is not None:
            if request.sampling.post_sampling_probs:
                odds = job.choosers[sequence.index].odds()
                info = drawn_info(odds, token, request.n_logprobs, self._special_piece)
            else:
                info = token_info(self._backend.logits(row), token, request.n_logprobs, self._special_piece)
        self.reports.append(Said(sequence.id, sequence.index, token, piece, info, ends, reason))
        if reason is not None:
            self._drop(job, sequence, reason)

    def _choose(self, job: Job, sequence: Sequence, row: int) -> int | None:
        chooser = job.choosers[sequence.index]
        if job.request.sampling.grammar is None:
            return chooser.sample(row)
        self.patience.begins(sequence.id)
        try:
            return chooser.sample(row)
        finally:
            self.patience.ends()

    def _special_piece(self, token: int) -> bytes:
        return self._pieces[token][1]

    def _end(self, job: Job, sequence: Sequence, reason: FinishReason) -> None:
        self.reports.append(Ended(sequence.id, sequence.index, reason))
        self._drop(job, sequence, reason)

    def fail(self, id: int, message: str, fault: Fault) -> None:
        """End a request with an error."""
        self.reports.append(Broke(id, message, fault))
        job = self._jobs.get(id)
        if job is None:
            return
        for sequence in list(job.sequences.values()):
            self._drop(job, sequence, "deadline" if fault == "deadline" else "failed")

    def _drop(self, job: Job, sequence: Sequence, reason: str) -> None:
        """Let go of a sequence that is over."""
        self._scheduler.finish(sequence)
        del job.sequences[sequence.index]
        job.choosers.pop(sequence.index).close()
        self._counters.finished[reason] += 1
        if not job.sequences:
            del self._jobs[sequence.id]


class Pieces(dict[int, tuple[bytes, bytes, bool]]):
    """A token's bytes, those with special tokens written out, and whether it ends a generation; asked for once."""

    def __init__(self, words: Words) -> None:
        self._words = words

    def __missing__(self, token: int) -> tuple[bytes, bytes, bool]:
        words = self._words
        found = words.piece(token, special=False), words.piece(token, special=True), words.ends_generation(token)
        self[token] = found
        return found


def _wish(request: GenerationRequest) -> Wish:
    return Wish(n_max=request.draft_max, n_min=request.draft_min, p_min=request.draft_p_min)


def is_time_over(job: Job, *, line_ends: bool) -> bool:
    """Is its deadline over, or a line behind the time that it was to take? Editors want whole lines."""
    request, now = job.request, time.perf_counter()
    if line_ends and request.max_generation_s is not None and now > job.first_token_at + request.max_generation_s:
        return True
    return request.ends_by_s is not None and now > request.ends_by_s
