"""The OpenAPI document: which endpoints there are, what they take, how errors look.

Paths are the application's own, so that none can be missing; bodies are said in `bodies.py`.
"""

from collections.abc import Iterable
from typing import Any, Final

from werkzeug.routing import Rule

from ggufphys import __version__
from server.api.bodies import ARRAYS, BODIES

Json = dict[str, Any]


_ERROR: Final[Json] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type"],
            "properties": {"message": {"type": "string"}, "type": {"type": "string"}, "code": {}, "param": {}},
        }
    },
}


def document(rules: Iterable[Rule], prefix: str = "") -> Json:
    """The document for an application's rules."""
    paths: dict[str, Json] = {}
    for rule in sorted(rules, key=lambda rule: rule.rule):
        for method in sorted((rule.methods or set()) & {"GET", "POST", "DELETE"}):
            paths.setdefault(_path(rule), {})[method.lower()] = _operation(rule, method)
    return {
        "openapi": "3.1.0",
        "info": {"title": "ggufphys serve", "version": __version__},
        "servers": [{"url": prefix or "/"}],
        "security": [{}, {"bearer": []}],
        "paths": paths,
        "components": {
            "schemas": {"Error": _ERROR},
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }


def _path(rule: Rule) -> str:
    return "".join(f"{{{name}}}" if is_variable else name for is_variable, name in _parts(rule))


def _parts(rule: Rule) -> list[tuple[bool, str]]:
    parts: list[tuple[bool, str]] = []
    for piece in rule.rule.replace("<", "\0<").replace(">", ">\0").split("\0"):
        if piece.startswith("<"):
            parts.append((True, piece.strip("<>").split(":")[-1]))
        elif piece:
            parts.append((False, piece))
    return parts


def _operation(rule: Rule, method: str) -> Json:
    refused = _json("an error", {"$ref": "#/components/schemas/Error"})
    found: Json = {
        "operationId": f"{method.lower()}_{_path(rule).strip('/').replace('/', '_') or 'page'}",
        "responses": {"200": {"description": "as docs/serve.md says"}, "default": refused},
    }
    names = [name for is_variable, name in _parts(rule) if is_variable]
    if names:
        found["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names
        ]
    if method == "POST":
        found["requestBody"] = {"required": True, **_json("JSON", _body(_path(rule)))}
    return found


def _body(path: str) -> Json:
    if path in ARRAYS:
        return {"type": "array", "items": ARRAYS[path]}
    fields, required = BODIES.get(path, ({}, ()))
    return {"type": "object", "properties": fields, "required": list(required)}


def _json(description: str, schema: Json) -> Json:
    return {"description": description, "content": {"application/json": {"schema": schema}}}
