"""The OpenAPI document: which endpoints there are, what they take, how errors look.

Paths are the application's own, so that none can be missing; bodies are said in `BODIES`, with the ranges that are
checked (`sampling_fields.py`).
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from werkzeug.routing import Rule

from ggufphys import __version__
from server.api.options import N_MAX, TOP_MAX
from server.api.sampling_fields import INTEGERS, NUMBERS

Json = dict[str, Any]


def _field(kind: str, **more: Any) -> Json:
    return {"type": [kind, "null"], **more}


_TEXT: Final = _field("string")
_FLAG: Final = _field("boolean")
_COUNT: Final = _field("integer", minimum=-1, maximum=2**31 - 1)
_TOKENS: Final = {"type": "array", "items": {"type": "integer", "minimum": 0}}
_OPTIONS: Final[Json] = {
    **{name: _field("number", minimum=low, maximum=high) for name, (low, high) in NUMBERS.items()},
    **{name: _field("integer", minimum=low, maximum=high) for name, (low, high) in INTEGERS.items()},
    "top_k": _COUNT,
    "seed": _field("integer", minimum=-1, maximum=2**32 - 1),
    "max_tokens": _COUNT,
    "n": _field("integer", minimum=1, maximum=N_MAX),
    "stop": {"anyOf": [_TEXT, {"type": "array", "items": {"type": "string"}}]},
    "stream": _FLAG,
    "cache_prompt": _FLAG,
    "ignore_eos": _FLAG,
    "return_tokens": _FLAG,
    "model": _TEXT,
}
_MESSAGE: Final[Json] = {
    "type": "object",
    "required": ["role", "content"],
    "properties": {
        "role": {"type": "string", "enum": ["system", "developer", "user", "assistant", "tool"]},
        "content": {"anyOf": [_TEXT, {"type": "array", "items": {"type": "object"}}]},
    },
}
_PROMPT: Final[Json] = {"prompt": {"anyOf": [{"type": "string"}, _TOKENS]}}
_MESSAGES: Final[Json] = {"messages": {"type": "array", "minItems": 1, "items": _MESSAGE}}

# What comes with POST to a path: fields, and those that must be there. Other paths take any object.
BODIES: Final[Mapping[str, tuple[Json, tuple[str, ...]]]] = {
    "/v1/completions": (
        {**_PROMPT, **_OPTIONS, "echo": _FLAG, "logprobs": _field("integer", minimum=0, maximum=100)},
        ("prompt",),
    ),
    "/v1/chat/completions": (
        {**_MESSAGES, **_OPTIONS, "logprobs": _FLAG, "top_logprobs": _field("integer", minimum=0, maximum=TOP_MAX)},
        ("messages",),
    ),
    "/v1/plan": ({**_PROMPT, **_MESSAGES, **_OPTIONS}, ()),
    "/v1/embeddings": ({"input": {"anyOf": [{"type": "string"}, _TOKENS]}, "dimensions": _COUNT}, ("input",)),
    "/tokenize": ({"content": _TEXT, "add_special": _FLAG, "parse_special": _FLAG, "with_pieces": _FLAG}, ("content",)),
    "/detokenize": ({"tokens": _TOKENS}, ("tokens",)),
    "/apply-template": (_MESSAGES, ("messages",)),
}
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
        fields, required = BODIES.get(_path(rule), ({}, ()))
        schema = {"type": "object", "properties": fields, "required": list(required)}
        found["requestBody"] = {"required": True, **_json("a JSON object", schema)}
    return found


def _json(description: str, schema: Json) -> Json:
    return {"description": description, "content": {"application/json": {"schema": schema}}}
