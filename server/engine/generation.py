"""A request under way: its reader's end, and its engine's."""

import queue
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

from server.engine.events import Event, Piece, Written
from server.engine.request import GenerationRequest
from server.engine.ways import Way

Sink = Callable[[Event], bool]
"""Takes an event, and says whether it takes more."""


class Generation:
    """A submitted request: the reader's end (`next_event` or `attach`, `cancel`) and the engine's (`publish`).

    What it calls is given the generation and holds none: in a cycle it would outlive its answer by a thousand others,
    until Python's collector looks at all objects again.
    """

    def __init__(
        self, request: GenerationRequest, on_cancel: "Callable[[Generation], None]" = lambda generation: None
    ) -> None:
        self.request = request
        self.submitted_at = time.perf_counter()
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._cancelled = threading.Event()
        self._sink: Sink | None = None
        self._lock = threading.Lock()  # over the sink: events reach it in order, one at a time
        self._on_cancel = on_cancel
        self.n_pieces = [0] * request.n  # of each answer, that have come
        self.way: Way | None = None  # to the client, which the engine may go by itself, with whom that is agreed
        self.send: Callable[[bytes], object] | None = None  # while it may be going: sends what else is to be said
        # sees events but pieces, as the reader gets them
        self.watch: Callable[[Generation, Event], None] = lambda generation, event: None

    @property
    def n(self) -> int:
        """Answers that are asked for."""
        return self.request.n

    def next_event(self, timeout_s: float | None) -> Event | None:
        """The next event, or None when there was none within `timeout_s`."""
        try:
            event = self._events.get(timeout=timeout_s)
        except queue.Empty:
            return None
        if not isinstance(event, Piece):
            self.watch(self, event)
        return event

    def attach(self, sink: "Sink") -> None:
        """Have events, those first that wait already, handed to `sink` by the thread that publishes them.

        It must not raise and not take long, since other readers' events wait meanwhile. From when it returns False on,
        events are for `next_event` again.
        """
        with self._lock:
            while not self._events.empty():
                event = self._events.get()
                if not isinstance(event, Piece):
                    self.watch(self, event)
                if not sink(event):
                    self.way = None
                    return
            self._sink = sink

    def quiet(self) -> AbstractContextManager[object]:
        """While it is held, nothing is handed to a sink."""
        return self._lock

    def cancel(self) -> None:
        """Say that nobody reads on. The engine ends it within a step; a generation that is over is left as it is."""
        if not self._cancelled.is_set():
            self._cancelled.set()
            self._on_cancel(self)

    @property
    def cancelled(self) -> bool:
        """Whether the reader has gone."""
        return self._cancelled.is_set()

    def publish(self, event: Event) -> None:
        """Hand an event to the reader."""
        with self._lock:
            if isinstance(event, Piece):
                self.n_pieces[event.index] += len(event.times_s) or 1
            elif isinstance(event, Written):
                self.n_pieces[0] += len(event.times_s)
            if self._sink is None:
                self._events.put(event)
                return
            if not isinstance(event, Piece):
                self.watch(self, event)
            if not self._sink(event):
                self._sink = self.way = None  # whoever reads from here on writes himself
