"""A generation's events to what goes over the wire: one JSON document, or a stream of server-sent events.

The two endpoints differ in the shape of their choices alone, which a `Shape` says.
"""

import json
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from flask import Request, Response, jsonify

from ggufphys import __version__
from server.api.errors import server_error
from server.api.options import Options
from server.config import ServerConfig
from server.engine.protocol import Event, Failed, Finished, Generation, Piece, Started, Usage

DONE: Final = b"data: [DONE]\n\n"
PING: Final = b": ping\n\n"

Json = dict[str, Any]


class Shape(Protocol):
    """How an endpoint writes its choices."""

    id_prefix: str
    kind: str  # "object" of the whole document
    chunk_kind: str  # "object" of a chunk of the stream

    def whole(self, text: str, reason: str) -> Json:
        """The choice of a whole answer."""
        ...

    def piece(self, text: str, *, first: bool) -> Json:
        """The choice of a chunk with text."""
        ...

    def last(self, reason: str, *, first: bool) -> Json:
        """The choice of the chunk that says why it ended."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A submitted generation on its way to its client."""

    config: ServerConfig
    generation: Generation
    shape: Shape
    options: Options
    disconnected: Callable[[], bool]
    model: str
    opening: str = ""  # shown before the generated text (echo)

    def response(self) -> Response:
        """The response, streamed or whole. Whichever way it ends, the generation does not outlive it."""
        if not self.options.stream:
            return self._whole()
        response = Response(self._stream(), mimetype="text/event-stream")
        response.headers["Cache-Control"] = "no-cache"
        response.headers["X-Accel-Buffering"] = "no"  # nginx would collect the chunks
        # Not in the generator's `finally`: a generator that was never started does not run it.
        response.call_on_close(self.generation.cancel)
        return response

    def _events(self) -> Iterator[Event | None]:
        """The generation's events to the last one, None in silence; ends early when the client has gone."""
        while True:
            event = self.generation.next_event(self.config.poll_s)
            if event is None and self.disconnected():
                return
            yield event
            if isinstance(event, Finished | Failed):
                return

    def _whole(self) -> Response:
        texts = [self.opening]
        try:
            for event in self._events():
                match event:
                    case Piece():
                        texts.append(event.text)
                    case Finished():
                        return jsonify(self._document("".join(texts), event))
                    case Failed():
                        raise server_error(event.message)
                    case Started() | None:
                        pass
        finally:
            self.generation.cancel()
        return Response(status=499)  # nobody reads it: the client has gone

    def _stream(self) -> Iterator[bytes]:
        head = self._head(self.shape.chunk_kind)
        if self.options.include_usage:
            head["usage"] = None
        first, quiet_since = True, time.monotonic()
        if self.opening:
            yield _data(head, choices=[self.shape.piece(self.opening, first=True)])
            first = False
        for event in self._events():
            match event:
                case Piece():
                    yield _data(head, choices=[self.shape.piece(event.text, first=first)])
                    first, quiet_since = False, time.monotonic()
                case Finished():
                    choice = self.shape.last(event.reason, first=first)
                    yield _data(head, choices=[choice], timings=_timings(event))
                    if self.options.include_usage:
                        yield _data(head, choices=[], usage=_usage(event.usage))
                    yield DONE
                case Failed():
                    yield _data(server_error(event.message).body())
                case Started() | None:
                    if time.monotonic() - quiet_since >= self.config.ping_s:
                        yield PING
                        quiet_since = time.monotonic()

    def _head(self, kind: str) -> Json:
        return {
            "id": self.shape.id_prefix + uuid.uuid4().hex,
            "object": kind,
            "created": int(time.time()),
            "model": self.model,
            "system_fingerprint": f"ggufphys-{__version__}",
        }

    def _document(self, text: str, finished: Finished) -> Json:
        return {
            **self._head(self.shape.kind),
            "choices": [self.shape.whole(text, finished.reason)],
            "usage": _usage(finished.usage),
            "timings": _timings(finished),
        }


def disconnect_probe(request: Request) -> Callable[[], bool]:
    """Whether the request's client has gone: waitress can tell while nothing is sent; elsewhere, only a write tells."""
    probe = request.environ.get("waitress.client_disconnected")
    return probe if callable(probe) else lambda: False


def _data(head: Mapping[str, Any], **more: Any) -> bytes:
    # ASCII: clients that split lines as Python's splitlines does would break an event at U+2028 or U+0085.
    return b"data: " + json.dumps({**head, **more}, separators=(",", ":")).encode() + b"\n\n"


def _usage(usage: Usage) -> Json:
    return {
        "prompt_tokens": usage.n_prompt,
        "completion_tokens": usage.n_generated,
        "total_tokens": usage.n_prompt + usage.n_generated,
        "prompt_tokens_details": {"cached_tokens": usage.n_cached},
    }


def _timings(finished: Finished) -> Json:
    """llama-server's `timings`, with the time in the queue; a rate is null when there is nothing to divide.

    The first generated token comes out of the prompt's evaluation, so `predicted_ms` spans one token less than
    `predicted_n` counts, and the rate divides by that.
    """
    usage, timings = finished.usage, finished.timings
    n_evaluated, n_decoded = usage.n_prompt - usage.n_cached, max(usage.n_generated - 1, 0)
    return {
        "queue_ms": timings.queue_s * 1000,
        "cache_n": usage.n_cached,
        "prompt_n": n_evaluated,
        "prompt_ms": timings.prompt_s * 1000,
        "prompt_per_second": _rate(n_evaluated, timings.prompt_s),
        "predicted_n": usage.n_generated,
        "predicted_ms": timings.decode_s * 1000,
        "predicted_per_second": _rate(n_decoded, timings.decode_s),
    }


def _rate(n: int, seconds: float) -> float | None:
    return n / seconds if n and seconds > 0 else None
