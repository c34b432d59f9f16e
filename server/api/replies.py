"""Answers to what goes over the wire: one JSON document, or a stream of server-sent events.

Endpoints differ in the shape of their choices alone: a `Choice` takes an answer's events and says what to show.
"""

import json
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from flask import Request, Response, jsonify

from ggufphys import __version__
from server.api.answers import Answers
from server.api.errors import from_fault
from server.api.options import Options
from server.api.timings import prompt_progress, timings, usage
from server.config import ServerConfig
from server.engine.protocol import Failed, Finished, Piece, Progress, PromptScores
from server.metrics import Metrics, Watch

DONE: Final = b"data: [DONE]\n\n"
PING: Final = b": ping\n\n"

Json = dict[str, Any]


class Choice(Protocol):
    """One answer as its endpoint writes it; `index` among the choices."""

    def opening(self) -> list[Json]:
        """What a stream shows before the first piece (echo)."""
        ...

    def scores(self, event: PromptScores) -> None:
        """Log-probabilities of the prompt."""
        ...

    def piece(self, event: Piece) -> list[Json]:
        """Choices of chunks for a piece; what they say is also kept for the whole answer."""
        ...

    def last(self, event: Finished) -> list[Json]:
        """Choices of the last chunks."""
        ...

    def whole(self, event: Finished) -> Json:
        """The choice of a whole answer, after all of its pieces."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What documents of an endpoint are called."""

    id_prefix: str
    whole: str
    chunk: str
    usage_in_last: bool = False  # llama-server's completions have it there without being asked


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """Submitted requests on their way to their client. Answer j of request i is choice i * n + j."""

    config: ServerConfig
    answers: Answers
    kind: Kind
    choices: list[Choice]
    options: Options
    disconnected: Callable[[], bool]
    model: str
    metrics: Metrics
    keep: Callable[[list[Json]], list[Json]] = lambda choices: choices  # which whole choices are sent (best_of)

    def response(self) -> Response:
        """The response, streamed or whole. Whichever way it ends, the generations do not outlive it."""
        if not self.options.stream:
            return self._whole()
        response = Response(self._stream(), mimetype="text/event-stream")
        response.headers["Cache-Control"] = "no-cache"
        response.headers["X-Accel-Buffering"] = "no"  # nginx would collect the chunks
        # Not in the generator's `finally`: a generator that was never started does not run it.
        response.call_on_close(self.answers.cancel)
        return response

    def _choice(self, number: int, index: int) -> Choice:
        return self.choices[number * self.answers.requests[0].n + index]

    def _whole(self) -> Response:
        finished: list[tuple[int, Finished]] = []
        whole: dict[int, Json] = {}
        watch = self.metrics.watch()
        try:
            for number, event in self.answers.events(self.config.poll_s, self.disconnected):
                match event:
                    case PromptScores():
                        for j in range(self.answers.requests[number].n):
                            self._choice(number, j).scores(event)
                    case Piece():
                        watch.piece(number, event)
                        self._choice(number, event.index).piece(event)
                    case Finished():
                        watch.finished(number, event)
                        finished.append((number, event))
                        choice = self._choice(number, event.index).whole(event)
                        whole[choice["index"]] = choice
                    case Failed():
                        raise from_fault(event)
                    case _:
                        pass
        finally:
            self.answers.cancel()
        if len(whole) < len(self.choices):
            return Response(status=499)  # nobody reads it: the client has gone
        document = {
            "choices": self.keep([whole[index] for index in sorted(whole)]),
            "usage": usage(finished),
            "timings": timings(finished[-1][1]),
        }
        return jsonify({**self._head(self.kind.whole), **document})

    def _stream(self) -> Iterator[bytes]:
        head = self._head(self.kind.chunk)
        if self.options.include_usage:
            head["usage"] = None
        finished: list[tuple[int, Finished]] = []
        watch, quiet_since = self.metrics.watch(), time.monotonic()
        opened: set[int] = set()
        for number, event in self.answers.events(self.config.poll_s, self.disconnected):
            shown: list[bytes] = []
            if isinstance(event, Piece | Finished):
                choice = self._choice(number, event.index)
                if id(choice) not in opened:
                    opened.add(id(choice))
                    shown += (_data(head, choices=[c]) for c in choice.opening())
            match event:
                case PromptScores():
                    for j in range(self.answers.requests[number].n):
                        self._choice(number, j).scores(event)
                case Progress():
                    shown.append(_data(head, choices=[], prompt_progress=prompt_progress(event)))
                case Piece():
                    watch.piece(number, event)
                    shown += (_data(head, choices=[c]) for c in choice.piece(event))
                case Finished():
                    watch.finished(number, event)
                    finished.append((number, event))
                    last = choice.last(event)
                    shown += (_data(head, choices=[c]) for c in last[:-1])
                    more = {"usage": usage(finished)} if self.kind.usage_in_last and self._is_over(finished) else {}
                    shown.append(_data(head, choices=last[-1:], timings=timings(event), **more))
                case Failed():
                    yield _data(from_fault(event).body())
                    return
                case _:
                    if time.monotonic() - quiet_since >= self.config.ping_s:
                        shown.append(PING)
            if shown:
                yield b"".join(shown)
                quiet_since = time.monotonic()
        if self._is_over(finished):
            if self.options.include_usage:
                yield _data(head, choices=[], usage=usage(finished))
            yield DONE

    def _is_over(self, finished: list[tuple[int, Finished]]) -> bool:
        return len(finished) == len(self.choices)

    def _head(self, kind: str) -> Json:
        return {
            "id": self.kind.id_prefix + uuid.uuid4().hex,
            "object": kind,
            "created": int(time.time()),
            "model": self.model,
            "system_fingerprint": f"ggufphys-{__version__}",
        }


def disconnect_probe(request: Request) -> Callable[[], bool]:
    """Whether the request's client has gone: waitress can tell while nothing is sent; elsewhere, only a write tells."""
    probe = request.environ.get("waitress.client_disconnected")
    return probe if callable(probe) else lambda: False


def _data(head: Mapping[str, Any], **more: Any) -> bytes:
    # ASCII: clients that split lines as Python's splitlines does would break an event at U+2028 or U+0085.
    return b"data: " + json.dumps({**head, **more}, separators=(",", ":")).encode() + b"\n\n"


__all__ = ["Choice", "Json", "Kind", "Reply", "Watch", "disconnect_probe"]
