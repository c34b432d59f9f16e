"""POST /v1/embeddings: a vector for each text."""

import base64
import math
import struct
from collections.abc import Sequence
from typing import Any, Final, cast, get_args

from flask import Blueprint, Response, jsonify, request

from server.api.errors import bad_request
from server.api.prompts import are_tokens
from server.api.schema import Fields, read_body
from server.engine.protocol import Engine, Pooling
from server.service import Service

Vector = Sequence[float]
EUCLIDEAN: Final = 2


def blueprint(service: Service) -> Blueprint:
    """OpenAI's endpoint, and llama-server's own shape under /embedding."""
    routes = Blueprint("embeddings", __name__)

    @routes.post("/v1/embeddings")
    def embeddings() -> Response:
        fields = read_body(request)
        as_base64 = _format(fields)
        prompts = _inputs(fields, "input", service.engine)
        pooling = _pooling(fields, service.engine)
        if pooling == "none":
            pooling = "last"  # one vector a text is what this endpoint promises
        dimensions = fields.integer("dimensions", 1, service.engine.info.n_embd)
        vectors = service.engine.embed(tuple(prompts), pooling)
        data = [
            {"object": "embedding", "index": i, "embedding": _shown(normalised(v[0][:dimensions]), as_base64)}
            for i, v in enumerate(vectors)
        ]
        n_tokens = sum(map(len, prompts))
        return jsonify({
            "object": "list", "model": service.engine.info.name, "data": data,
            "usage": {"prompt_tokens": n_tokens, "total_tokens": n_tokens},
        })  # fmt: skip

    @routes.post("/embedding")
    @routes.post("/embeddings")
    def native() -> Response:
        fields = read_body(request)
        name = "content" if fields.get("content") is not None else "input"
        prompts = _inputs(fields, name, service.engine)
        how = fields.integer("embd_normalize", -1, 2)
        vectors = service.engine.embed(tuple(prompts), _pooling(fields, service.engine))
        kept = how is not None and how < 0
        if how not in (None, -1, EUCLIDEAN):
            raise bad_request(f"embd_normalize is {how}, expected -1 (none) or 2 (Euclidean)", param="embd_normalize")
        return jsonify([
            {"index": i, "embedding": [list(v) if kept else normalised(v) for v in each]}
            for i, each in enumerate(vectors)
        ])  # fmt: skip

    return routes


def normalised(vector: Vector) -> list[float]:
    """The vector at length 1; one of zeros stays."""
    length = math.sqrt(sum(x * x for x in vector))
    return [x / length for x in vector] if length else list(vector)


def _shown(vector: list[float], as_base64: bool) -> list[float] | str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode() if as_base64 else vector


def _format(fields: Fields) -> bool:
    found = fields.string("encoding_format", "float")
    if found not in ("float", "base64"):
        raise bad_request(f"encoding_format is {found!r:.32}, expected float or base64", param="encoding_format")
    return found == "base64"


def _pooling(fields: Fields, engine: Engine) -> Pooling:
    found = fields.string("pooling", engine.info.pooling)
    if found not in get_args(Pooling):
        raise bad_request(f"pooling is {found!r:.32}, expected one of {', '.join(get_args(Pooling))}", param="pooling")
    return cast("Pooling", found)


def _inputs(fields: Fields, name: str, engine: Engine) -> list[tuple[int, ...]]:
    """Tokens of each text: a string, an array of token ids, or an array of these."""
    value: Any = fields.get(name)
    if value is None or value == []:
        raise bad_request(f"{name} is missing, expected a string, token ids, or an array of these", param=name)
    many = isinstance(value, list) and isinstance(value[0], str | list)
    found = []
    for each in value if many else [value]:
        if isinstance(each, str):
            tokens = engine.tokenize(fields.unicode(name, each))
        elif isinstance(each, list) and are_tokens(each, engine.info.n_vocab):
            tokens = tuple(each)
        else:
            raise fields.wrong(name, "a string, token ids, or an array of these")
        if not tokens:
            raise bad_request(f"{name} has an empty text, and this model has no BOS token", param=name)
        found.append(tokens)
    return found
