"""Who comes in? Each request is held against its key, the engine's state and its client's share, before an endpoint."""

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Final

from flask import Flask, Request, Response, g, request
from werkzeug.datastructures import Headers

from server.access.keys import Keys
from server.access.limits import RETRY_S, TooManyError
from server.admission import limit_s
from server.api import errors
from server.api.errors import ApiError
from server.api.replies import disconnect_probe
from server.engine.protocol import Engine, EngineStatus
from server.service import Service

ASLEEP_PATHS: Final = ("/models", "/v1/models", "/metrics", "/v1/memory")  # answered without waking a model
ASLEEP_BELOW: Final = "/v1/models/"
OPEN_PATHS: Final = ("/health", "/v1/health", "/", "/openapi.json")  # answered without a key, and while the model loads


class Gate:
    """What every request of an application passes first. `engine` is the model's own, without admission in front."""

    def __init__(self, service: Service, engine: Engine) -> None:
        self._service = service
        self._engine = engine

    def guard(self, app: Flask) -> None:
        """Have requests of `app` pass it, and their places given back behind the response."""
        app.before_request(self._admit)
        app.after_request(_release)

    def _admit(self) -> None:
        """Raises ApiError: not this client, or not now."""
        if request.path in OPEN_PATHS or request.routing_exception is not None:
            return  # an unknown path or method is answered as such, whatever the key
        service = self._service
        client = g.client = client_of(request, service.keys)
        unknown = request.environ.get(errors.UNKNOWN_MODEL)
        if unknown is not None:
            known = ", ".join(each.name for each in service.siblings)
            raise ApiError(
                404, f"no model named {unknown!r}: this server has {known}", param="model", code="model_not_found"
            )
        if service.draining.is_set() and request.method == "POST":
            raise errors.draining()
        self._require_ready()
        if request.path not in ASLEEP_PATHS and not request.path.startswith(ASLEEP_BELOW):
            self._wake()
        if request.method == "POST":
            g.done = self._take(client)

    def _require_ready(self) -> None:
        """Raises ApiError: no request can be answered now."""
        engine = self._engine
        if engine.status is EngineStatus.FAILED:
            raise ApiError(503, f"the model could not be loaded: {engine.error}", kind="unavailable_error")
        if engine.status is EngineStatus.RESTARTING:
            raise errors.loading(f"Restarting: {engine.error}")
        if engine.status is not EngineStatus.READY:
            raise errors.loading()

    def _wake(self) -> None:
        """Have a model that sleeps loaded, one of several; raises ApiError: there is no room, or it can't be."""
        wake: Callable[[Callable[[], bool]], None] | None = getattr(self._engine, "wake", None)
        if wake is None:
            return
        try:
            wake(self._nobody_waits())
        except ApiError:
            if self._service.draining.is_set():
                raise errors.draining() from None
            raise

    def _nobody_waits(self) -> Callable[[], bool]:
        """Whether the client has gone, or what it said that it would wait is over, or the server ends."""
        gone, allowed_s, came_at = disconnect_probe(request), limit_s(), time.monotonic()

        def is_over() -> bool:
            late = allowed_s is not None and time.monotonic() - came_at > allowed_s
            return late or gone() or self._service.draining.is_set()

        return is_over

    def _take(self, client: str) -> Callable[[], None]:
        """One of the client's places, which the call gives back; raises ApiError: it has none left."""
        service = self._service
        try:
            return service.limits.take(client, service.engine.forecast.place_s() or RETRY_S)
        except TooManyError as error:
            service.metrics.refused(error.reason)
            raise errors.too_many(str(error), error.retry_after_s) from error


def _release(response: Response) -> Response:
    done = g.pop("done", None)
    if done is not None:
        response.call_on_close(done)
    return response


def client_of(request: Request, keys: Keys) -> str:
    """Who asks: the id of the key that was given; without keys the address.

    Raises:
        ApiError: 401, no key or a wrong one.
    """
    if not keys:
        return request.remote_addr or ""
    given = tuple(given_keys(request.headers))
    found = next(filter(None, map(keys.match, given)), "")
    if found:
        return found
    message = "wrong API key" if given else "an API key is needed: send it as 'Authorization: Bearer KEY'"
    raise ApiError(401, message, kind="authentication_error", code="invalid_api_key")


def given_keys(headers: Headers) -> Iterator[str]:
    """What a request gives as its key, in `Authorization` or `X-Api-Key`, with `Bearer` in front or without.

    WSGI reads headers as Latin-1, and clients write them in UTF-8, too.

    Source: llama.cpp 0c1e570 tools/server/server-http.cpp, middleware_validate_api_key.
    """
    for name in ("Authorization", "X-Api-Key"):
        text = headers.get(name, "").strip()
        scheme, _, credentials = text.partition(" ")
        key = credentials.strip() if scheme.lower() == "bearer" else text
        if key:
            yield key
            with suppress(UnicodeError):
                yield key.encode("latin-1").decode()
