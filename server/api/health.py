"""GET /health: whether to send requests here. llama-server's shapes, which its users' probes look for."""

from flask import Blueprint, Response, jsonify

from server.api.errors import DRAINING, LOADING
from server.engine.protocol import EngineStatus
from server.service import Service


def blueprint(service: Service) -> Blueprint:
    """The probe, answered without a key and whatever the engine does."""
    routes = Blueprint("health", __name__)

    @routes.get("/health")
    @routes.get("/v1/health")
    def health() -> Response:
        status = service.engine.status
        if service.draining.is_set() or status is EngineStatus.CLOSED:
            return _unavailable(DRAINING)
        match status:
            case EngineStatus.READY if service.engine.complaint:
                return _unavailable(f"Stalled: {service.engine.complaint}")
            case EngineStatus.READY:
                return jsonify({"status": "ok", **_restarts(service)})
            case EngineStatus.LOADING:
                return _unavailable(LOADING)
            case EngineStatus.RESTARTING:
                return _unavailable(f"Restarting: {service.engine.error}")
            case EngineStatus.FAILED:
                return _unavailable(f"The model could not be loaded: {service.engine.error}")

    return routes


def _restarts(service: Service) -> dict[str, object]:
    """How often the engine's process has died, if it has, and of what the last time."""
    n = service.engine.counters.n_restarts
    return {"restarts": n, "last_crash": str(service.engine.error)} if n else {}


def _unavailable(message: str) -> Response:
    response = jsonify({"error": {"code": 503, "message": message, "type": "unavailable_error"}})
    response.status_code = 503
    return response
