"""The Flask application: endpoints over an engine. No module-level app; a test gives it a fake engine."""

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Final

from flask import Flask, Request, Response, g, request
from flask.json.provider import DefaultJSONProvider
from werkzeug.datastructures import Headers
from werkzeug.exceptions import NotFound
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from server.access.cors import Cors
from server.access.keys import Keys
from server.access.limits import RETRY_S, TooManyError
from server.accounts.forecast import Rates
from server.accounts.ledger import Ledger
from server.accounts.requests_written import keep_journal
from server.admission import limit_s
from server.api import (
    adapters,
    anthropic,
    chat,
    completions,
    embeddings,
    errors,
    health,
    models,
    native,
    native_completion,
    page,
    plan,
    rerank,
    responses,
    tokens,
)
from server.api.conversation.conversations import Conversations
from server.api.errors import ApiError
from server.api.replies import disconnect_probe
from server.config import ServerConfig
from server.engine.protocol import Engine, EngineStatus
from server.service import Service

ASLEEP_PATHS: Final = ("/models", "/v1/models", "/metrics", "/v1/memory")  # answered without waking a model
ASLEEP_BELOW: Final = "/v1/models/"
OPEN_PATHS: Final = ("/health", "/v1/health", "/", "/openapi.json")  # answered without a key, and while the model loads


def create_app(
    config: ServerConfig, engine: Engine, ledger: Ledger | None = None, predicted: Rates | None = None
) -> Flask:
    """The application. `app.extensions["ggufphys"]` is its `Service`, through which a server drains it.

    `ledger` and `predicted` are what was known before the load: memory, and how fast it will be.
    """
    app = Flask("server", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = config.max_body_bytes
    app.config["FIELD_DEFAULTS"] = config.field_defaults
    assert isinstance(app.json, DefaultJSONProvider)
    app.json.sort_keys = False
    service = Service(config, engine, ledger or Ledger(), predicted)
    app.extensions["ggufphys"] = service
    errors.register(app, service)
    keep_journal(app)
    conversations = Conversations(service)
    for conversing in (anthropic, chat, native, plan, responses, tokens):
        app.register_blueprint(conversing.blueprint(service, conversations))
    for module in (adapters, completions, embeddings, models, native_completion, health, page, rerank):
        app.register_blueprint(module.blueprint(service))

    wake: Callable[[Callable[[], bool]], None] | None = getattr(engine, "wake", None)  # of several models' engines

    @app.before_request
    def admit() -> None:
        if request.path in OPEN_PATHS or request.routing_exception is not None:
            return  # an unknown path or method is answered as such, whatever the key
        client = g.client = client_of(request, service.keys)
        unknown = request.environ.get(errors.UNKNOWN_MODEL)
        if unknown is not None:
            known = ", ".join(each.name for each in service.siblings)
            raise ApiError(
                404, f"no model named {unknown!r}: this server has {known}", param="model", code="model_not_found"
            )
        if service.draining.is_set() and request.method == "POST":
            raise errors.draining()
        if engine.status is EngineStatus.FAILED:
            raise ApiError(503, f"the model could not be loaded: {engine.error}", kind="unavailable_error")
        if engine.status is EngineStatus.RESTARTING:
            raise errors.loading(f"Restarting: {engine.error}")
        if engine.status is not EngineStatus.READY:
            raise errors.loading()
        sleeps = request.path in ASLEEP_PATHS or request.path.startswith(ASLEEP_BELOW)
        if wake is not None and not sleeps:
            try:
                wake(nobody_waits())
            except ApiError:
                if service.draining.is_set():
                    raise errors.draining() from None
                raise
        if request.method == "POST":
            g.done = take(client)

    def nobody_waits() -> Callable[[], bool]:
        """Whether the client has gone, or what it said that it would wait is over, or the server ends."""
        gone, allowed_s, came_at = disconnect_probe(request), limit_s(), time.monotonic()

        def is_over() -> bool:
            late = allowed_s is not None and time.monotonic() - came_at > allowed_s
            return late or gone() or service.draining.is_set()

        return is_over

    def take(client: str) -> object:
        try:
            return service.limits.take(client, service.engine.forecast.place_s() or RETRY_S)
        except TooManyError as error:
            service.metrics.rejected.labels(error.reason).inc()
            raise errors.too_many(str(error), error.retry_after_s) from error

    @app.after_request
    def release(response: Response) -> Response:
        done = g.pop("done", None)
        if done is not None:
            response.call_on_close(done)
        return response

    inner = DispatcherMiddleware(NotFound(), {config.api_prefix: app.wsgi_app}) if config.api_prefix else app.wsgi_app
    app.wsgi_app = Cors(service.in_flight.counting(inner), config.cors)  # type: ignore[method-assign]
    return app


def service_of(app: Flask) -> Service:
    """The application's `Service`."""
    service = app.extensions["ggufphys"]
    assert isinstance(service, Service)
    return service


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
