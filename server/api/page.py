"""GET /: a page of slots, queue and memory, with a box to chat in. GET /openapi.json: what the endpoints take."""

from pathlib import Path
from typing import Final

from flask import Blueprint, Response, abort, current_app, jsonify

from server.api.openapi import document
from server.service import Service

PAGE: Final = Path(__file__).resolve().parents[1] / "page.html"
POLICY: Final = (
    "default-src 'self'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'"
)


def blueprint(service: Service) -> Blueprint:
    """Both, without a key: they tell nothing of what is served."""
    routes = Blueprint("page", __name__)

    @routes.get("/")
    def page() -> Response:
        if not service.config.shows_page:
            abort(404)
        response = Response(PAGE.read_bytes(), mimetype="text/html")
        response.headers["Content-Security-Policy"] = POLICY
        return response

    @routes.get("/openapi.json")
    def openapi() -> Response:
        return jsonify(document(current_app.url_map.iter_rules(), service.config.api_prefix))

    return routes
