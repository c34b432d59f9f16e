"""Answers on their way to a client: one JSON document, or a stream of server-sent events.

Endpoints differ in what they write alone: a `Shape` takes the events and says what to show of them.
"""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Protocol

from flask import Request, Response, jsonify

from server.api.answers import Answers
from server.api.errors import ApiError, from_fault
from server.config import ServerConfig
from server.engine.protocol import Event, Failed, Finished, Piece
from server.metrics import Metrics

DONE: Final = b"data: [DONE]\n\n"
PING: Final = b": ping\n\n"

Json = dict[str, Any]


class Shape(Protocol):
    """How an endpoint writes answers down; a fresh one for each request."""

    named: bool  # whether events of a stream carry their `type` as their name, and the stream has no [DONE]
    done: bool  # whether a stream ends with [DONE]

    def take(self, number: int, event: Event) -> list[Json]:
        """An event of request `number`: what a stream shows of it. What it says is also kept for `document`."""
        ...

    def closing(self) -> list[Json]:
        """What a stream shows when all answers have ended."""
        ...

    def failed(self, error: ApiError) -> Json:
        """What a stream shows of an error behind its beginning."""
        ...

    def document(self) -> Any:
        """All answers as one document, when they have ended."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """Submitted requests on their way to their client. `ping_s` 0 or less: silence stays silence."""

    config: ServerConfig
    answers: Answers
    shape: Shape
    stream: bool
    ping_s: float
    disconnected: Callable[[], bool]
    metrics: Metrics

    def response(self) -> Response:
        """The response, streamed or whole. Whichever way it ends, the generations do not outlive it."""
        if not self.stream:
            return self._whole()
        response = Response(self._stream(), mimetype="text/event-stream")
        response.headers["Cache-Control"] = "no-cache"
        response.headers["X-Accel-Buffering"] = "no"  # nginx would collect the chunks
        # Not in the generator's `finally`: a generator that was never started does not run it.
        response.call_on_close(self.answers.cancel)
        return response

    def _whole(self) -> Response:
        n_left = self._n_answers()
        watch = self.metrics.watch()
        try:
            for number, event in self.answers.events(self.config.poll_s, self.disconnected):
                match event:
                    case None:
                        continue
                    case Failed():
                        raise from_fault(event)
                    case Piece():
                        watch.piece(number, event)
                    case Finished():
                        watch.finished(number, event)
                        n_left -= 1
                self.shape.take(number, event)
        finally:
            self.answers.cancel()
        if n_left:
            return Response(status=499)  # nobody reads it: the client has gone
        return jsonify(self.shape.document())

    def _stream(self) -> Iterator[bytes]:
        n_left = self._n_answers()
        watch, quiet_since = self.metrics.watch(), time.monotonic()
        for number, event in self.answers.events(self.config.poll_s, self.disconnected):
            shown: list[bytes] = []
            match event:
                case None:
                    if 0 <= self.ping_s <= time.monotonic() - quiet_since:
                        shown.append(PING)
                case Failed():
                    yield self._data(self.shape.failed(from_fault(event)))
                    return
                case Piece():
                    watch.piece(number, event)
                case Finished():
                    watch.finished(number, event)
                    n_left -= 1
            if event is not None:
                shown += map(self._data, self.shape.take(number, event))
            if shown:
                yield b"".join(shown)
                quiet_since = time.monotonic()
        if not n_left:
            yield b"".join(map(self._data, self.shape.closing())) + (DONE if self.shape.done else b"")

    def _n_answers(self) -> int:
        return sum(request.n for request in self.answers.requests)

    def _data(self, document: Json) -> bytes:
        # ASCII: clients that split lines as Python's splitlines does would break an event at U+2028 or U+0085.
        name = f"event: {document['type']}\n".encode() if self.shape.named else b""
        return name + b"data: " + json.dumps(document, separators=(",", ":")).encode() + b"\n\n"


def disconnect_probe(request: Request) -> Callable[[], bool]:
    """Whether the request's client has gone: waitress can tell while nothing is sent; elsewhere, only a write tells."""
    probe = request.environ.get("waitress.client_disconnected")
    return probe if callable(probe) else lambda: False
