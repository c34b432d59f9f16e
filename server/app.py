"""The Flask application: endpoints over an engine. No module-level app; a test gives it a fake engine."""

import hmac
from typing import Final

from flask import Flask, Request, request
from flask.json.provider import DefaultJSONProvider

from server.api import chat, completions, embeddings, errors, health, models, native
from server.api.conversation.conversations import Conversations
from server.api.errors import ApiError
from server.config import ServerConfig
from server.engine.protocol import Engine, EngineStatus
from server.service import Service

OPEN_PATHS: Final = ("/health", "/v1/health")  # answered without a key, and while the model loads


def create_app(config: ServerConfig, engine: Engine) -> Flask:
    """The application. `app.extensions["ggufphys"]` is its `Service`, through which a server drains it."""
    app = Flask("server", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = config.max_body_bytes
    assert isinstance(app.json, DefaultJSONProvider)
    app.json.sort_keys = False
    service = Service(config, engine)
    app.extensions["ggufphys"] = service
    errors.register(app, service)
    app.register_blueprint(chat.blueprint(service, Conversations(service)))
    for module in (completions, embeddings, models, native, health):
        app.register_blueprint(module.blueprint(service))

    @app.before_request
    def admit() -> None:
        if request.path in OPEN_PATHS or request.routing_exception is not None:
            return  # an unknown path or method is answered as such, whatever the key
        check_key(request, config.api_keys)
        if service.draining.is_set() and request.method == "POST":
            raise errors.draining()
        if engine.status is EngineStatus.FAILED:
            raise ApiError(503, f"the model could not be loaded: {engine.error}", kind="unavailable_error")
        if engine.status is not EngineStatus.READY:
            raise errors.loading()

    app.wsgi_app = service.in_flight.counting(app.wsgi_app)  # type: ignore[method-assign, assignment]
    return app


def service_of(app: Flask) -> Service:
    """The application's `Service`."""
    service = app.extensions["ggufphys"]
    assert isinstance(service, Service)
    return service


def check_key(request: Request, keys: tuple[str, ...]) -> None:
    """Whether the request carries one of the keys, as `Authorization: Bearer` or `X-Api-Key`.

    Raises:
        ApiError: 401, no key or a wrong one.
    """
    if not keys:
        return
    scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
    given = credentials.strip() if scheme.lower() == "bearer" else request.headers.get("X-Api-Key", "")
    # Every key is compared, each in constant time, so that the time taken tells nothing.
    if sum(hmac.compare_digest(given.encode(), key.encode()) for key in keys):
        return
    message = "wrong API key" if given else "an API key is needed: send it as 'Authorization: Bearer KEY'"
    raise ApiError(401, message, kind="authentication_error", code="invalid_api_key")
