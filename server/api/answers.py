"""Several requests to the engine as one: their events in the order they come, each with the request's number.

A list of prompts may be longer than the engine's queue: requests are handed over as there is room, a few at a time.
"""

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from server.engine.errors import QueueFullError
from server.engine.events import Event, Failed, Finished
from server.engine.generation import Generation, Sink
from server.engine.protocol import Engine
from server.engine.request import GenerationRequest
from server.engine.ways import Way

AHEAD: Final = 2  # requests handed over for each answer that can be under way


class Answers:
    """The events of requests. The first is handed over at once, so that its refusal is an HTTP error."""

    def __init__(self, engine: Engine, requests: Sequence[GenerationRequest]) -> None:
        self.requests = requests
        self._engine = engine
        self._window = max(1, AHEAD * engine.info.n_slots)
        self._generations: list[Generation] = [engine.submit(requests[0])]
        self._cancelled = False

    def cancel(self) -> None:
        """Nobody reads on."""
        self._cancelled = True
        for generation in self._generations:
            generation.cancel()

    def lead(self, way: Way) -> None:
        """The one request's answer goes this way, which the engine may go itself."""
        self._generations[0].way = way

    @property
    def send(self) -> Callable[[bytes], object] | None:
        """While the engine may be going there: sends what else is to be said, in order, whole."""
        return self._generations[0].send

    def follow(self, take: Sink, poll_s: float) -> Iterator[None]:
        """Hand the one request's events to `take`, in the engine's thread, until it takes no more; yields now and then.

        So the thread that waits here is not woken for each token, which costs more than what is done with it. What
        `take` raises is raised here. Left early, `take` is called no more.
        """
        (generation,) = self._generations
        over, errors = threading.Event(), list[Exception]()

        def sink(event: Event) -> bool:
            try:
                if not over.is_set() and take(event):
                    return True
            except Exception as error:
                errors.append(error)
            over.set()
            return False

        try:
            generation.attach(sink)
            while not over.wait(poll_s):
                with generation.quiet():  # what is done meanwhile is not done in the middle of an event
                    yield
        finally:
            with generation.quiet():  # nor does it end in the middle of one
                over.set()
                generation.way = None
        if errors:
            raise errors[0]

    def events(self, poll_s: float, disconnected: Callable[[], bool]) -> Iterator[tuple[int, Event | None]]:
        """(request, event) until one failed or nobody listens; None in silence. Whoever reads stops with the last."""
        source = self._alone(poll_s) if len(self.requests) == 1 else self._together(poll_s)
        looked_at = time.monotonic()
        for number, event in source:
            now = time.monotonic()
            if event is None or now - looked_at >= poll_s:
                looked_at = now
                if disconnected():
                    return
            yield number, event
            if isinstance(event, Failed):
                return

    def _alone(self, poll_s: float) -> Iterator[tuple[int, Event | None]]:
        while True:  # some answers may have ended before: whoever reads knows when it was the last
            yield 0, self._generations[0].next_event(poll_s)

    def _together(self, poll_s: float) -> Iterator[tuple[int, Event | None]]:
        events: queue.SimpleQueue[tuple[int, Event]] = queue.SimpleQueue()
        n_ended, left = 0, [request.n for request in self.requests]
        self._forward(0, events)
        while n_ended < len(self.requests) and not self._cancelled:
            while len(self._generations) < min(len(self.requests), n_ended + self._window):
                try:
                    generation = self._engine.submit(self.requests[len(self._generations)])
                except QueueFullError:
                    if len(self._generations) == n_ended:  # none of ours is under way: others fill the queue
                        raise
                    break
                self._generations.append(generation)
                self._forward(len(self._generations) - 1, events)
            try:
                number, event = events.get(timeout=poll_s)
            except queue.Empty:
                yield 0, None
                continue
            left[number] -= isinstance(event, Finished)
            n_ended += isinstance(event, Finished) and not left[number]
            yield number, event

    def _forward(self, number: int, events: "queue.SimpleQueue[tuple[int, Event]]") -> None:
        """A thread that hands a generation's events to the common queue."""
        generation, n = self._generations[number], self.requests[number].n

        def run() -> None:
            left = n
            while left and not generation.cancelled:
                event = generation.next_event(1.0)
                if event is not None:
                    events.put((number, event))
                    left = 0 if isinstance(event, Failed) else left - isinstance(event, Finished)

        threading.Thread(target=run, name=f"answers-{number}", daemon=True).start()
