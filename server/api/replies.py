"""Answers on their way to a client: one JSON document, or a stream of server-sent events.

Endpoints differ in what they write alone: a `Shape` takes the events and says what to show of them.
"""

import json
import re
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from flask import Request, Response, jsonify, request
from waitress.channel import ClientDisconnected

from server.accounts.metrics import Metrics
from server.api.answers import Answers
from server.api.errors import ApiError, from_fault
from server.api.options import Options
from server.config import ServerConfig
from server.engine.events import Event, Failed, Finished, Piece, Written
from server.engine.forms import BLANKS, Blank, Form
from server.net.channels import Channel
from server.net.doors import Door
from server.net.presence import FIRST_S

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

    from server.service import Service

DONE: Final = b"data: [DONE]\n\n"
PING: Final = b": ping\n\n"
PUSHED_BYTES: Final = 4 << 20
ENCODE: Final = json.JSONEncoder(separators=(",", ":")).encode

Json = dict[str, Any]
_MARK: Final = uuid.uuid4().hex  # no client's word, whatever it calls its model
MARKS: Final[dict[Blank, str]] = {blank: f"{blank} {_MARK}" for blank in BLANKS}
"""What stands for a blank in a document that a form is made of, in place of its value, whatever its type."""
_FIND: Final = re.compile(f'"({"|".join(BLANKS)}) {_MARK}"'.encode())


class Shape(Protocol):
    """How an endpoint writes answers down; a fresh one for each request."""

    named: bool  # whether events of a stream carry their `type` as their name, and the stream has no [DONE]
    done: bool  # whether a stream ends with [DONE]

    def take(self, number: int, event: Event) -> list[Json]:
        """An event of request `number`: what a stream shows of it. What it says is also kept for `document`."""
        ...

    def form(self, number: int, index: int) -> Form | None:
        """How a stream shows an answer's next piece, where all are shown so from now on; None: by `take` alone.

        What is shown by a plain form isn't kept for `document`. Of another one `take` is told by `Written`.
        """
        return None

    def closing(self) -> list[Json]:
        """What a stream shows when all answers have ended."""
        ...

    def failed(self, error: ApiError) -> Json:
        """What a stream shows of an error behind its beginning."""
        ...

    def document(self) -> Any:
        """All answers as one document, when they have ended."""
        ...


def event_of(document: Json, *, named: bool) -> bytes:
    """A document as an event of a stream; `named` by its type, too."""
    # ASCII: clients that split lines as Python's splitlines does would break an event at U+2028 or U+0085.
    name = f"event: {document['type']}\n".encode() if named else b""
    return name + b"data: " + ENCODE(document).encode() + b"\n\n"


def form_of(document: Json, *, named: bool = False, n_before: int = 0) -> Form:
    """The form of documents that are like this one, in which `MARKS` stand for what differs."""
    parts = _FIND.split(event_of(document, named=named))
    return Form(tuple(parts[::2]), tuple(cast("list[Blank]", [name.decode() for name in parts[1::2]])), n_before)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """Submitted requests on their way to their client. `ping_s` less than 0: silence stays silence."""

    config: ServerConfig
    answers: Answers
    shape: Shape
    stream: bool
    ping_s: float
    disconnected: Callable[[], bool]
    has_said_all: Callable[[], bool]  # the client's side has ended: only what is sent shows whether it is there
    metrics: Metrics

    def response(self) -> Response:
        """The response, streamed or whole. Whichever way it ends, the generations do not outlive it."""
        if not self.stream:
            return self._whole()
        response = EventStream(mimetype="text/event-stream")
        response.response = self._stream(response)
        response.headers["Cache-Control"] = "no-cache"
        response.headers["X-Accel-Buffering"] = "no"  # nginx would collect the chunks
        # Not in the generator's `finally`: a generator that was never started does not run it.
        response.call_on_close(self.answers.cancel)
        return response

    def _whole(self) -> Response:
        shown = _Shown(self)
        try:
            if len(self.answers.requests) == 1:
                for _ in self.answers.follow(lambda event: shown.keep(0, event), self.config.poll_s):
                    if self.disconnected():
                        break
            else:
                for number, event in self.answers.events(self.config.poll_s, self.disconnected):
                    if event is not None and not shown.keep(number, event):
                        break
        finally:
            self.answers.cancel()
            shown.close()
        if shown.n_left:
            return Response(status=499)  # nobody reads it: the client has gone
        return jsonify(self.shape.document())

    def _stream(self, response: "EventStream") -> Iterator[bytes]:
        shown = _Shown(self)
        try:
            if response.write is not None and len(self.answers.requests) == 1:
                yield from self._pushed(shown, response.write)
            if not shown.has_ended():
                yield from self._pulled(shown)
        finally:
            shown.close()
        if not shown.n_left:
            yield b"".join(map(self._data, self.shape.closing())) + (DONE if self.shape.done else b"")

    def _pushed(self, shown: "_Shown", write: Callable[[bytes], object]) -> Iterator[bytes]:
        """Have the engine write what it can, until the end or until the client may be too slow for that.

        Its thread here, and behind the first piece the engine itself, where that is not this process.
        """
        n_pushed = 0
        door: Door | None = None

        def take(event: Event) -> bool:
            nonlocal n_pushed, door
            data = shown.take(0, event)
            if isinstance(event, Failed) and door is not None and self.answers.send is not None:
                door.end()  # who wrote there may have died in the middle of a chunk: none of another answer follows it
            if data:
                write(data)
            elif isinstance(event, Written) and event.unsent and door is not None:
                data = event.unsent
                door.write(data)
            n_pushed += len(data)
            if door is None and shown.forms and (door := Door.of(write)) is not None:
                self.answers.lead(door.way(lambda: self.shape.form(0, 0)))
            return not shown.has_ended() and n_pushed < PUSHED_BYTES

        try:
            for _ in self.answers.follow(take, self.config.poll_s):
                if self.disconnected():
                    shown.end()
                    return
                data, send = shown.silence(), self.answers.send
                if data and send is not None and door is not None:
                    send(door.framed(data))
                elif data:
                    yield data
        except ClientDisconnected:
            shown.end()

    def _pulled(self, shown: "_Shown") -> Iterator[bytes]:
        """What is shown, in this thread."""
        for number, event in self.answers.events(self.config.poll_s, self.disconnected):
            data = shown.silence() if event is None else shown.take(number, event)
            if data:
                yield data
            if shown.has_ended():
                return

    def _data(self, document: Json) -> bytes:
        return event_of(document, named=self.shape.named)


class EventStream(Response):
    """A streamed response that knows the server's own `write`, if any thread may call it: waitress locks its buffers.

    Source: PEP 3333, the write() callable; waitress/channel.py, write_soon, which waits for a client only where more
    than `outbuf_high_watermark` (16 MiB) are due to it: `PUSHED_BYTES` is less.
    """

    write: Callable[[bytes], object] | None = None

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """As any response."""

        def start(*arguments: Any) -> Callable[[bytes], object]:
            write = start_response(*arguments)
            if "waitress.client_disconnected" in environ:
                self.write = write
            return write

        return super().__call__(environ, start)


class _Shown:
    """What of a reply has been shown: events in, bytes of the stream out."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self._watch = reply.metrics.watch()
        self._quiet_since = time.perf_counter()
        self._ask_s = FIRST_S  # until a silent client that has said all is asked again whether it is there
        self.n_left = sum(request.n for request in reply.answers.requests)
        self._is_over = False
        self.forms: dict[tuple[int, int], Form] = {}  # of answers (request, index), from when they have one

    def has_ended(self) -> bool:
        """Whether nothing more is to be shown."""
        return self._is_over

    def end(self) -> None:
        """Note that nobody looks any more."""
        self._is_over = True

    def close(self) -> None:
        """No event comes any more, whether all came or not."""
        self._watch.flush()

    def keep(self, number: int, event: Event) -> bool:
        """Note an event for the document; whether more come. Raises ApiError when it failed."""
        if isinstance(event, Failed):
            self._reply.metrics.failed(event)
            raise from_fault(event)
        self._note(number, event)
        self._reply.shape.take(number, event)
        return not self._is_over

    def take(self, number: int, event: Event) -> bytes:
        """What the stream shows of an event."""
        reply = self._reply
        if isinstance(event, Failed):
            reply.metrics.failed(event)
            self._is_over = True
            return reply._data(reply.shape.failed(from_fault(event)))
        form = self.forms.get((number, event.index)) if type(event) is Piece else None
        if form is not None and form.is_plain and type(event) is Piece:
            self._quiet_since = self._watch.piece(number, event)
            return form.plain(event.text)
        if isinstance(event, Written):
            self._watch.pieces(event.times_s)
            self._quiet_since = max((self._quiet_since, *event.times_s))
            reply.shape.take(number, event)
            return b""
        self._note(number, event)
        data = b"".join(map(reply._data, reply.shape.take(number, event)))
        if type(event) is Piece and form is None and (form := reply.shape.form(number, event.index)) is not None:
            self.forms[number, event.index] = form
        if data:
            self._quiet_since = time.perf_counter()
        return data

    def _note(self, number: int, event: Event) -> None:
        if isinstance(event, Piece):
            self._watch.piece(number, event)
        elif isinstance(event, Finished):
            self._watch.finished(event)
            self.n_left -= 1
            self._is_over = not self.n_left

    def silence(self) -> bytes:
        """What keeps a silent stream open, now and then, and shows whether who has said all still listens."""
        quiet_s = time.perf_counter() - self._quiet_since
        if self._reply.has_said_all() and quiet_s >= self._ask_s:
            self._ask_s *= 2
        elif not 0 <= self._reply.ping_s <= quiet_s:
            return b""
        self._quiet_since = time.perf_counter()
        return PING


def reply(service: "Service", answers: Answers, shape: Shape, options: Options) -> Response:
    """The response to the request that is being answered, streamed or whole as it asks."""
    return Reply(
        config=service.config,
        answers=answers,
        shape=shape,
        stream=options.stream,
        ping_s=options.ping_s(service.config),
        disconnected=disconnect_probe(request),
        has_said_all=_said_all_probe(request),
        metrics=service.metrics,
    ).response()


def disconnect_probe(request: Request) -> Callable[[], bool]:
    """Whether the request's client has gone: waitress can tell while nothing is sent; elsewhere, only a write tells."""
    probe = request.environ.get("waitress.client_disconnected")
    return probe if callable(probe) else lambda: False


def _said_all_probe(request: Request) -> Callable[[], bool]:
    channel = getattr(request.environ.get("waitress.client_disconnected"), "__self__", None)
    return lambda: isinstance(channel, Channel) and channel.heard_all
