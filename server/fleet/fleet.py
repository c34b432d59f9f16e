"""Several models behind one address: each is loaded when it is first asked for, and the longest unused make room.

A model's application is there from the start, over an engine that is not: `LazyEngine` starts one when a request with
a valid key comes, and stops it when others need the room and nobody uses it (`server/fleet/room.py`). The `model` of a
request's body (or `?model=`) says which is meant.
"""

import io
import json
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from flask import Flask

from ggufphys.units import format_bytes
from server.api.errors import RETRY_LOADING_S, UNKNOWN_MODEL, ApiError
from server.engine.counters import Counters
from server.engine.errors import NotReadyError
from server.engine.generation import Generation
from server.engine.loop.threaded import SHUTTING_DOWN, BaseEngine
from server.engine.media import Read
from server.engine.model_info import ModelInfo, Pooling
from server.engine.protocol import EngineStatus, IsOver, Vectors
from server.engine.request import ActiveAdapters, GenerationRequest
from server.fleet.room import Room

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


class LazyEngine:
    """An engine that is started when it is needed; implements `Engine`. `wake` starts it, `sleep` ends it."""

    def __init__(self, name: str, process_bytes: int, start: Callable[[], BaseEngine], room: Room) -> None:
        self.name = name
        self.process_bytes = process_bytes
        self.used_at = 0.0
        self.in_use: Callable[[], int] = lambda: 0  # requests under way, with those that wait; the application says
        self._start = start
        self._room = room
        self._engine: BaseEngine | None = None
        self._is_closed = False

    def wake(self, is_over: Callable[[], bool] = lambda: False) -> None:
        """Load it, if it is not there; others may have to go, which may have to be waited for, until `is_over`.

        Raises:
            ApiError: 503, the others were in use for too long, or the model could not be loaded.
        """
        self._room.enter(self, is_over)

    @property
    def is_loaded(self) -> bool:
        """Whether there is an engine."""
        return self._engine is not None

    def load(self) -> None:
        """Start it, and wait until it can be used."""
        engine = self._start()
        if engine.wait_until_settled() is not EngineStatus.READY:
            error = engine.error
            engine.close()
            raise ApiError(
                503, f"{self.name} could not be loaded: {error}", kind="unavailable_error", code="worker_died",
                retry_after_s=RETRY_LOADING_S,  # the next request has it tried again
            )  # fmt: skip
        self._engine = engine

    def sleep(self) -> None:
        """End it."""
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()

    @property
    def _awake(self) -> BaseEngine:
        if self._is_closed:
            raise NotReadyError(SHUTTING_DOWN)
        if self._engine is None:
            self.wake()
        assert self._engine is not None
        return self._engine

    @property
    def pid(self) -> int | None:
        """The worker's process, if there is one."""
        return getattr(self._engine, "pid", None)

    @property
    def buffers(self) -> Any:
        """What llama.cpp's log says of its memory."""
        return self._engine.buffers if self._engine is not None else ()

    @property
    def status(self) -> EngineStatus:
        """READY too while it sleeps: a request wakes it."""
        return EngineStatus.READY if self._engine is None else self._engine.status

    @property
    def complaint(self) -> str:
        """What is wrong with its worker, though it is there."""
        return "" if self._engine is None else self._engine.complaint

    @property
    def error(self) -> Exception | None:
        """What the last worker died of."""
        return None if self._engine is None else self._engine.error

    @property
    def info(self) -> ModelInfo:
        """The model."""
        return self._awake.info

    @property
    def counters(self) -> Counters:
        """What has been done since it was loaded."""
        return Counters() if self._engine is None else self._engine.counters

    def tokenize(self, text: str, *, add_special: bool = True, parse_special: bool = True) -> tuple[int, ...]:
        """Tokens of a text."""
        return self._awake.tokenize(text, add_special=add_special, parse_special=parse_special)

    def detokenize(self, tokens: tuple[int, ...]) -> str:
        """The text of tokens."""
        return self._awake.detokenize(tokens)

    def pieces(self, tokens: tuple[int, ...]) -> tuple[bytes, ...]:
        """The bytes of each token."""
        return self._awake.pieces(tokens)

    def read(self, file: bytes) -> Read:
        """The tokens that an image or sound is."""
        return self._awake.read(file)

    def submit(self, request: GenerationRequest) -> Generation:
        """Queue a request."""
        return self._awake.submit(request)

    def embed(
        self,
        prompts: tuple[tuple[int, ...], ...],
        pooling: Pooling | None = None,
        adapters: ActiveAdapters = (),
        is_over: IsOver = lambda: False,
    ) -> tuple[Vectors, ...]:
        """Vectors of prompts."""
        return self._awake.embed(prompts, pooling, adapters, is_over)

    def close(self) -> None:
        """End it for good."""
        self._is_closed = True
        self.sleep()


class Fleet:
    """A WSGI application over those of several models, by name; the first is meant where none is named."""

    def __init__(self, apps: dict[str, Flask], max_body_bytes: int) -> None:
        self._apps = apps
        self._max_body_bytes = max_body_bytes

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Hand a request to the application of the model that it names."""
        name = self._named(environ)
        if name and name not in self._apps:
            environ[UNKNOWN_MODEL], name = name, ""  # said by an application, behind its look at the key
        return self._apps[name or next(iter(self._apps))](environ, start_response)

    def _named(self, environ: "WSGIEnvironment") -> str:
        """The model's name in the query or the body, which is put back; empty where there is none."""
        asked = parse_qs(environ.get("QUERY_STRING", "")).get("model")
        if asked:
            return str(asked[0])
        length = environ.get("CONTENT_LENGTH") or ""
        if environ["REQUEST_METHOD"] != "POST" or not length.isdecimal() or int(length) > self._max_body_bytes:
            return ""
        body = environ["wsgi.input"].read(int(length))
        environ["wsgi.input"] = io.BytesIO(body)
        try:
            model = json.loads(body)["model"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return ""  # the application says what is wrong
        return model if isinstance(model, str) else ""


def describe(engines: Iterable[LazyEngine], budget_bytes: int) -> str:
    """The models and their predicted footprints in one line."""
    parts = ", ".join(f"{e.name} about {format_bytes(e.process_bytes)}" for e in engines)
    return f"predicted: {parts}; at most {format_bytes(budget_bytes)} are loaded at a time"
