"""From a step's tokens to what readers get: text, stop strings, timings. In a thread that is not the engine's."""

import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from server.engine.counters import Counters
from server.engine.events import (
    Failed,
    Fault,
    Finished,
    FinishReason,
    Piece,
    Progress,
    PromptScores,
    Started,
    Timings,
    TokenInfo,
    Usage,
    Written,
)
from server.engine.frames import (
    Began,
    Broke,
    Cancel,
    Drafted,
    Embedded,
    Ended,
    Evaluated,
    Gathered,
    Preempted,
    Refused,
    Report,
    Said,
    Scored,
    Step,
    Wrote,
)
from server.engine.generation import Generation
from server.engine.protocol import Vectors
from server.engine.readers.lines import Lines
from server.engine.readers.stopping import StopStrings
from server.engine.readers.text import TextStream
from server.engine.ways import Aside, Offer

OFFERS: Final = 8  # of a way to a client that are made for an answer at most


@dataclass(slots=True)
class Answer:
    """One of a request's answers as far as it has come."""

    text: TextStream
    lines: Lines
    n_generated: int = 0
    first_at: float = 0.0
    last_at: float = 0.0
    n_preempted: int = 0
    n_drafted: int = 0
    n_draft_accepted: int = 0
    infos: list[TokenInfo] = field(default_factory=list)  # of tokens that are not handed out yet


class Reader:
    """A generation and its answers."""

    def __init__(self, generation: Generation) -> None:
        self.generation = generation
        request = generation.request
        stop = StopStrings(request.stop)
        self.answers = {index: Answer(TextStream(stop), Lines(request.n_indent)) for index in range(request.n)}
        self.wants_tokens = request.return_tokens or request.n_logprobs is not None
        # nothing is shown but a text, or its tokens beside
        self.may_lead = request.n == 1 and request.n_logprobs is None and not request.n_indent
        self.n_offers = 0
        self.n_offered = 0  # tokens that the last one is behind
        self.began_at = 0.0
        self.n_cached = 0
        self.reevaluated = ""

    def begin(self, report: Began, at_s: float) -> None:
        """The prompt is being evaluated."""
        self.began_at, self.n_cached, self.reevaluated = at_s, report.n_cached, report.reevaluated
        self.generation.publish(Started(n_cached=report.n_cached, reevaluated=report.reevaluated))
        if self.generation.request.report_progress:
            self.progress(report.n_cached, at_s)

    def progress(self, n_done: int, at_s: float) -> None:
        """So much of the prompt is done."""
        n_prompt, elapsed_s = len(self.generation.request.prompt), at_s - self.began_at
        found = Progress(n_prompt=n_prompt, n_cached=self.n_cached, n_done=n_done, elapsed_s=elapsed_s)
        self.generation.publish(found)

    def say(self, index: int, said: Iterable[tuple[Any, ...]], times_s: Iterable[float]) -> FinishReason | None:
        """Tokens have come then, each as `Said` has it; why the answer's text ends with the last, if it does."""
        answer, texts, tokens, shown_s = self.answers[index], list[str](), list[TokenInfo](), list[float]()
        is_over = False
        for (_, _, token, piece, info, ends, _), at_s in zip(said, times_s, strict=True):
            answer.n_generated += 1
            answer.first_at = answer.first_at or at_s
            answer.last_at = at_s
            if self.wants_tokens and (not ends or piece or self.generation.request.show_end):
                answer.infos.append(info or TokenInfo(token=token, piece=piece))
            text = answer.lines.feed(answer.text.feed(piece))
            is_over = bool(answer.text.stopped) or answer.lines.is_cut
            if is_over:
                answer.infos = answer.infos[: 1 if text else 0]  # those behind the one that text comes from are unsaid
            if text or (answer.infos and not answer.text.n_held):
                texts.append(text)
                tokens += answer.infos
                answer.infos = []
                shown_s.append(at_s)
            if is_over:
                break
        if shown_s:
            shown = Piece(text="".join(texts), tokens=tuple(tokens), index=index, times_s=tuple(shown_s))
            self.generation.publish(shown)
        return None if not is_over else "length" if answer.lines.is_cut else "stop"

    def offer(self, id: int) -> Offer | None:
        """The one answer's way to its client, from here on; None where there is text that has not been shown."""
        way, answer = self.generation.way, self.answers[0]
        form = way.form() if way is not None and not answer.text.rest else None
        if way is None or form is None:
            return None
        if self.wants_tokens != ("tokens" in form.blanks):  # nor will they be shown later
            self.generation.way = None
            return None
        return Offer(id, answer.n_generated, form, way.chunked, self.generation.request.stop)

    def wrote(self, report: Wrote) -> None:
        """The worker has sent so much itself."""
        answer, generation = self.answers[0], self.generation
        answer.n_generated += report.n_tokens
        answer.last_at = report.times_s[-1] if report.times_s else answer.last_at
        if report.rest is None and report.unsent and generation.send is not None:
            generation.send(report.unsent)  # it came back between two ways, and the worker may go the second one
            return
        if report.rest is not None:
            answer.text.feed(report.rest)
            answer.infos = [TokenInfo(token=token, piece=piece) for token, piece in report.held]
        n_tokens = answer.n_generated - len(answer.infos or report.held)
        generation.publish(Written(times_s=report.times_s, text=report.text, n_tokens=n_tokens, unsent=report.unsent))
        if report.rest is not None:  # no sooner: what others write comes behind what was not sent
            generation.send = generation.way = None

    def end(self, index: int, reason: FinishReason, at_s: float) -> None:
        """The answer is over: what was held back, and the last event."""
        answer = self.answers.pop(index)
        request = self.generation.request
        if not answer.text.stopped and not answer.lines.is_cut:
            text = answer.lines.feed(answer.text.finish())
            if text or answer.infos:
                self.generation.publish(Piece(text=text, tokens=tuple(answer.infos), index=index, times_s=(at_s,)))
        first, last = answer.first_at or at_s, answer.last_at or at_s
        is_full = reason == "length" and (
            request.max_tokens is None or answer.n_generated < request.max_tokens
        )  # fmt: skip
        timed = request.max_generation_s is not None or request.ends_by_s is not None or answer.lines.is_cut
        self.generation.publish(
            Finished(
                reason=reason,
                index=index,
                stop="" if answer.lines.is_cut else answer.text.stopped,
                truncated=is_full and not timed,
                usage=Usage(n_prompt=len(request.prompt), n_cached=self.n_cached, n_generated=answer.n_generated),
                timings=Timings(
                    queue_s=(self.began_at or at_s) - self.generation.submitted_at,
                    prompt_s=first - (self.began_at or at_s),
                    decode_s=last - first,
                    reevaluated=self.reevaluated,
                    n_preempted=answer.n_preempted,
                    n_drafted=answer.n_drafted,
                    n_draft_accepted=answer.n_draft_accepted,
                ),
            )
        )


class Embedding:
    """Vectors that somebody waits for."""

    n = 1

    def __init__(self) -> None:
        self.submitted_at = time.perf_counter()
        self.done = threading.Event()
        self.vectors: tuple[Vectors, ...] = ()
        self.failed: Failed | None = None


HandOn = Callable[[Offer | Aside, int], bool]
"""Gives the worker a way to a client, with its socket, or what else is to be sent there; whether it could."""


class Readers:
    """All requests under way, by number. `take` is called by one thread, the others by any.

    Args:
        cancel: tells the loop that an answer is not wanted any more, since a stop string came.
    """

    def __init__(self, cancel: Callable[[Cancel], None]) -> None:
        self._cancel = cancel
        self.hand_on: HandOn | None = None
        self._lock = threading.Lock()
        self._readers: dict[int, Reader] = {}
        self._embeddings: dict[int, Embedding] = {}
        self.counters = Counters()
        self._closed: Failed | None = None  # what becomes of those that come too late
        self.ended: Callable[[Generation], None] = lambda generation: None

    def add(self, id: int, generation: Generation) -> None:
        """Await a generation's reports."""
        with self._lock:
            closed = self._closed
            if closed is None:
                self._readers[id] = Reader(generation)
        if closed is not None:
            self.ended(generation)
            generation.publish(closed)

    def add_embedding(self, id: int, embedding: Embedding) -> None:
        """Await vectors."""
        with self._lock:
            if self._closed is None:
                self._embeddings[id] = embedding
                return
        embedding.failed = self._closed
        embedding.done.set()

    def forget_embedding(self, id: int) -> None:
        """Nobody waits for them any more."""
        self._embeddings.pop(id, None)

    def take(self, step: Step) -> None:
        """Hand out what a step brought."""
        if step.counters is not None:
            self.counters = step.counters
        for report in step.reports:
            reader = self._readers.get(report.id)
            if isinstance(report, Embedded):
                self._hand_over(report)
            elif reader is not None:
                self._take(report, reader, step.at_s)
            elif isinstance(report, Broke) and (embedding := self._embeddings.pop(report.id, None)):
                embedding.failed = Failed(message=report.message, fault=report.fault)
                embedding.done.set()

    def _take(self, report: Report, reader: Reader, at_s: float) -> None:
        match report:  # the commonest first
            case Said(id, index, _, _, _, _, reason) if index in reader.answers:
                self._say(id, reader, index, (report,), (at_s,), reason)
                if reader.may_lead and reader.answers and reader.generation.way and self.hand_on:
                    self._offer(id, reader, self.hand_on)
            case Gathered(id, index, said, times_s) if index in reader.answers:
                self._say(id, reader, index, said, times_s, said[-1][-1])
            case Wrote() if 0 in reader.answers:
                reader.wrote(report)
            case Refused(_, n_tokens) if n_tokens == reader.n_offered:
                reader.generation.send = None
            case Began():
                reader.begin(report, at_s)
            case Evaluated(_, n_done):
                reader.progress(n_done, at_s)
            case Scored(_, start, tokens):
                reader.generation.publish(PromptScores(start=start, tokens=tokens))
            case Ended(id, index, reason) if index in reader.answers:
                self._end(id, reader, index, reason, at_s)
            case Drafted(_, index, n_drafted, n_accepted) if index in reader.answers:
                reader.answers[index].n_drafted += n_drafted
                reader.answers[index].n_draft_accepted += n_accepted
            case Preempted(_, index) if index in reader.answers:
                reader.answers[index].n_preempted += 1
            case Broke(id, message, fault):
                self._forget(id, reader)
                reader.generation.publish(Failed(message=message, fault=fault))

    def _say(
        self, id: int, reader: Reader, index: int, said: Sequence[tuple[Any, ...]], times_s: Sequence[float],
        reason: FinishReason | None,
    ) -> None:  # fmt: skip
        """`reason`: the last of these tokens is the answer's."""
        ended = reader.say(index, said, times_s)
        if ended is not None and reason is None:
            self._cancel(Cancel(id, index))
        reason = ended or reason
        if reason is not None:
            self._end(id, reader, index, reason, times_s[-1])

    def _offer(self, id: int, reader: Reader, hand_on: HandOn) -> None:
        """Let the worker go on with an answer, if it can before the next token: one that comes here tells that not.

        Each try costs as much as a token, and with a model that is faster than our threads none may succeed.
        """
        generation = reader.generation
        with generation.quiet():  # nobody else writes meanwhile
            generation.send = None
            offer, way = reader.offer(id), generation.way
            if offer is None or way is None or (fileno := way.dup()) < 0:
                return
            reader.n_offers, reader.n_offered = reader.n_offers + 1, offer.n_tokens
            if reader.n_offers == OFFERS:
                generation.way = None
            if hand_on(offer, fileno):
                generation.send = lambda data: hand_on(Aside(id, data), -1)
            os.close(fileno)

    def _end(self, id: int, reader: Reader, index: int, reason: FinishReason, at_s: float) -> None:
        if len(reader.answers) == 1:
            self._forget(id, reader)
        reader.end(index, reason, at_s)

    def _forget(self, id: int, reader: Reader) -> None:
        with self._lock:
            self._readers.pop(id, None)
        self.ended(reader.generation)

    def _hand_over(self, report: Embedded) -> None:
        embedding = self._embeddings.pop(report.id, None)
        if embedding is not None:
            embedding.vectors = tuple(tuple(memoryview(row).cast("f") for row in rows) for rows in report.rows)
            embedding.done.set()

    def fail_all(self, message: str, fault: Fault) -> None:
        """Nothing more will come: the loop has ended, or its process has. Until `reopen` later ones fail alike."""
        with self._lock:
            self._closed = Failed(message=message, fault=fault)
            readers, self._readers = list(self._readers.values()), {}
            embeddings, self._embeddings = list(self._embeddings.values()), {}
        for embedding in embeddings:
            embedding.failed = Failed(message=message, fault=fault)
            embedding.done.set()
        for reader in readers:
            self.ended(reader.generation)
            reader.generation.publish(Failed(message=message, fault=fault))

    def reopen(self) -> None:
        """There is a loop again."""
        with self._lock:
            self._closed = None
