"""The Flask application: endpoints over an engine. No module-level app; a test gives it a fake engine."""

from flask import Flask
from flask.json.provider import DefaultJSONProvider
from werkzeug.exceptions import NotFound
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from server.access.cors import Cors
from server.accounts.forecast import Rates
from server.accounts.ledger import Ledger
from server.accounts.requests_written import keep_journal
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
from server.config import ServerConfig
from server.engine.protocol import Engine
from server.gate import Gate
from server.service import Service


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
    Gate(service, engine).guard(app)
    inner = DispatcherMiddleware(NotFound(), {config.api_prefix: app.wsgi_app}) if config.api_prefix else app.wsgi_app
    app.wsgi_app = Cors(service.in_flight.counting(inner), config.cors)  # type: ignore[method-assign]
    return app


def service_of(app: Flask) -> Service:
    """The application's `Service`."""
    service = app.extensions["ggufphys"]
    assert isinstance(service, Service)
    return service
