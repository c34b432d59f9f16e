"""Every way to say no, in OpenAI's shape: {"error": {"message", "type", "param", "code"}}.

The openai client retries 408, 409, 429 and 5xx, honouring Retry-After, and nothing else: what can never succeed must be
another 4xx.
"""

import logging
import math
from collections.abc import Mapping
from typing import Any, Final

from flask import Flask, Response, jsonify
from werkzeug.exceptions import HTTPException

from server.access.refusals import Refusal
from server.admission import DeadlineError
from server.engine.errors import (
    ContextLengthError,
    EngineError,
    FaultError,
    NoTextError,
    NotReadyError,
    QueueFullError,
    TextLengthError,
)
from server.engine.events import Failed
from server.service import Service
from server.template.chat_template import ChatTemplateError

LOGGER: Final = logging.getLogger(__name__)

LOADING: Final = "Loading model"
DRAINING: Final = "The server is shutting down"
RETRY_LOADING_S: Final = 1
RETRY_DRAINING_S: Final = 10
UNKNOWN_MODEL: Final = "ggufphys.unknown_model"  # of the WSGI environment: a name that none of several models has
RETRY_LATE_S: Final = 1  # a client that is in a hurry; at its next attempt admission knows better


class ApiError(Exception):
    """A request that is answered with an error. `param` names the field that is wrong."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        retry_after_s: float | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind
        self.param = param
        self.code = code
        self.retry_after_s = retry_after_s
        self.more = more or {}

    def body(self) -> dict[str, dict[str, Any]]:
        """The JSON document; `more` belongs to the error beside the usual fields."""
        error = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}
        return {"error": {**error, **self.more}}

    def response(self) -> Response:
        """The HTTP response."""
        response = jsonify(self.body())
        response.status_code = self.status
        if self.retry_after_s is not None:
            response.headers["Retry-After"] = str(max(1, math.ceil(self.retry_after_s)))
        return response


def bad_request(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    """400: the request cannot succeed as it is."""
    return ApiError(400, message, param=param, code=code)


def loading(message: str = LOADING) -> ApiError:
    """503 while the model loads, in llama-server's words."""
    return ApiError(503, message, kind="unavailable_error", code="model_loading", retry_after_s=RETRY_LOADING_S)


def draining() -> ApiError:
    """503 while the server shuts down."""
    return ApiError(503, DRAINING, kind="unavailable_error", code="shutting_down", retry_after_s=RETRY_DRAINING_S)


def too_many(message: str, retry_after_s: float) -> ApiError:
    """429: not now."""
    return ApiError(
        429, f"too many requests: {message}", kind="rate_limit_error", code="rate_limit_exceeded",
        retry_after_s=retry_after_s,
    )  # fmt: skip


def server_error(message: str) -> ApiError:
    """500: the engine failed on a request that was in order."""
    return ApiError(500, message, kind="server_error", code="engine_error")


def from_fault(failed: Failed) -> ApiError:
    """What a generation that failed is to the client."""
    match failed.fault:
        case "request":
            return bad_request(failed.message)
        case "worker":
            return ApiError(
                503, failed.message, kind="unavailable_error", code="worker_died", retry_after_s=RETRY_LOADING_S
            )
        case "closed":
            return draining()
        case "deadline":
            return ApiError(
                429, failed.message, kind="rate_limit_error", code="deadline", retry_after_s=RETRY_LATE_S
            )  # fmt: skip
        case _:
            return server_error(failed.message)


def from_engine(error: EngineError, service: Service) -> ApiError:
    """What an engine's refusal is to the client."""
    match error:
        case ContextLengthError():
            # OpenAI's code, and what llama-server's clients look for
            param = error.param if isinstance(error, TextLengthError) else "prompt"
            return ApiError(
                400, str(error), kind="exceed_context_size_error", param=param, code="context_length_exceeded",
                more={"n_prompt_tokens": error.n_prompt, "n_ctx": error.n_ctx_seq},
            )  # fmt: skip
        case FaultError():
            return from_fault(error.failed)
        case NoTextError():
            return ApiError(501, str(error), kind="not_supported_error")
        case QueueFullError():
            return too_many(str(error), error.retry_after_s)
        case NotReadyError():
            return draining() if service.draining.is_set() else loading()
        case _:
            return server_error(str(error))


def register(app: Flask, service: Service) -> None:
    """Answer every error of `app` in this shape, those of Flask and Werkzeug included."""

    @app.errorhandler(ApiError)
    def api_error(error: ApiError) -> Response:
        return error.response()

    @app.errorhandler(ValueError)
    def value_error(error: ValueError) -> Response:  # what this engine cannot do, or a grammar that is none
        return bad_request(str(error)).response()

    @app.errorhandler(EngineError)
    def engine_error(error: EngineError) -> Response:
        if isinstance(error, QueueFullError):
            service.metrics.refused(Refusal.QUEUE_FULL)
        elif isinstance(error, ContextLengthError):
            service.metrics.refused(Refusal.CONTEXT_LENGTH)
        return from_engine(error, service).response()

    @app.errorhandler(DeadlineError)
    def deadline_error(error: DeadlineError) -> Response:
        service.metrics.refused(Refusal.DEADLINE)
        later = error.retry_after_s is not None
        return ApiError(
            429 if later else 400, str(error), kind="rate_limit_error" if later else "invalid_request_error",
            param=error.header, code="deadline", retry_after_s=error.retry_after_s,
            more={"predicted_ms": error.predicted_ms},
        ).response()  # fmt: skip

    @app.errorhandler(ChatTemplateError)
    def template_error(error: ChatTemplateError) -> Response:
        return bad_request(str(error), param="messages").response()

    @app.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> Response:
        status = error.code or 500
        response = ApiError(status, _http_message(error, status, service), code=_HTTP_CODES.get(status)).response()
        if status == 405:  # Allow
            response.headers.extend({k: v for k, v in error.get_headers() if k == "Allow"})
        return response

    @app.errorhandler(Exception)
    def unexpected(error: Exception) -> Response:
        LOGGER.error("unexpected error while answering a request", exc_info=error)
        return server_error("internal error: see the server's log").response()


_HTTP_CODES: Final = {404: "not_found", 405: "method_not_allowed", 413: "request_too_large"}


def _http_message(error: HTTPException, status: int, service: Service) -> str:
    if status == 413:
        return f"the request body is larger than {service.config.max_body_bytes:,} bytes"
    if status == 404:
        return "no such endpoint: docs/serve.md lists those that this server has"
    return error.description or error.name
