"""POST /v1/embeddings: a vector for each text."""

import base64
import math
import struct
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any, Final, cast, get_args

from flask import Blueprint, Response, request

from server.api.adapters import read_adapters, served_name
from server.api.errors import ApiError, bad_request
from server.api.prompts import read_prompts
from server.api.replies import ENCODE, disconnect_probe
from server.api.schema import Fields, read_body
from server.engine.errors import TextLengthError
from server.engine.model_info import Pooling, Tokens
from server.engine.protocol import Engine, Vectors
from server.service import Service

Vector = Sequence[float]
EUCLIDEAN: Final = 2
INT16: Final = 32760.0  # what the largest value becomes at 0
MOST_NORM: Final = 100
PIECE_BYTES: Final = 1 << 18  # of an answer, that are made at a time


def blueprint(service: Service) -> Blueprint:
    """OpenAI's endpoint, and llama-server's own shape under /embedding."""
    routes = Blueprint("embeddings", __name__)

    def embedded(fields: Fields, prompts: Sequence[Tokens], pooling: Pooling) -> tuple[Vectors, ...]:
        adapters = read_adapters(fields, service.engine.info)
        try:
            return service.embed(tuple(prompts), pooling, adapters, disconnect_probe(request))
        except TextLengthError as error:
            name = _input(fields)
            if len(prompts) > 1:
                name += f"[{[len(prompt) for prompt in prompts].index(error.n_prompt)}]"
            raise error.named(name, name) from None

    @routes.post("/v1/embeddings")
    def embeddings() -> Response:
        fields = read_body(request)
        if _input(fields) == "content":
            return answer_natively(fields)  # llama-server's word, and its shape
        encoding = {"encoding_format": "base64"} if _format(fields) else {}
        prompts, how = inputs(fields, service.engine, _input(fields)), read_norm(fields)
        pooling = _pooling(fields, service.engine)
        if pooling == "none":
            pooling = _one(service.engine)
        dimensions = fields.integer("dimensions", 1, service.engine.info.n_embd)
        vectors = embedded(fields, prompts, pooling)
        data = (
            ENCODE({
                "object": "embedding", "index": i, "embedding": _shown(scaled(v[0][:dimensions], how), bool(encoding)),
                **encoding,
            })
            for i, v in enumerate(vectors)
        )  # fmt: skip
        n_tokens = sum(map(len, prompts))
        usage = ENCODE({"prompt_tokens": n_tokens, "total_tokens": n_tokens})
        name = ENCODE(served_name(fields.get("model"), service.engine.info))
        return written(chain([f'{{"object":"list","model":{name},"data":'], array(data), [f',"usage":{usage}}}']))

    @routes.post("/embedding")
    @routes.post("/embeddings")
    def native() -> Response:
        return answer_natively(read_body(request))

    def answer_natively(fields: Fields) -> Response:
        if _format(fields):
            raise bad_request("encoding_format is base64, which /v1/embeddings with an input has", "encoding_format")
        prompts, how = inputs(fields, service.engine, _input(fields)), read_norm(fields)
        dimensions = fields.integer("dimensions", 1, service.engine.info.n_embd)
        pooling = _pooling(fields, service.engine)
        if pooling == "none":
            how = -1  # source: llama.cpp 0c1e570 tools/server/server-context.cpp, send_embedding
        vectors = embedded(fields, prompts, pooling)
        items = (
            chain([f'{{"index":{i},"embedding":'], array(ENCODE(scaled(row[:dimensions], how)) for row in each), ["}"])
            for i, each in enumerate(vectors)
        )
        return written(array(items))

    return routes


def array(items: Iterable[str | Iterable[str]]) -> Iterator[str]:
    """An array in JSON, of items as text or of parts of that."""
    yield "["
    for i, item in enumerate(items):
        if i:
            yield ","
        yield from [item] if isinstance(item, str) else item
    yield "]"


def written(parts: Iterable[str]) -> Response:
    """A document written as it is sent: as text it is several times as large as in memory."""

    def pieces() -> Iterator[bytes]:
        piece = ""
        for part in parts:
            piece += part
            if len(piece) > PIECE_BYTES:
                yield piece.encode()
                piece = ""
        yield f"{piece}\n".encode()

    found = pieces()
    start = list(islice(found, 2))
    if len(start) == 1:
        return Response(start[0], mimetype="application/json")  # with its length
    return Response(chain(start, found), mimetype="application/json")


def scaled(vector: Vector, how: int = EUCLIDEAN) -> list[float]:
    """The vector at length 1 by the norm `how`; at 0 its largest value is that of int16, at -1 it is as it was.

    Source: llama.cpp 0c1e570 common/common.cpp, common_embd_normalize.
    """
    largest = max(map(abs, vector))
    if how < 0 or not largest:
        return list(vector)
    if how == 0:
        length = largest / INT16
    elif how == EUCLIDEAN:
        length = math.sqrt(sum(x * x for x in vector))
    else:  # high powers are beyond what a float holds
        length = largest * sum((abs(x) / largest) ** how for x in vector) ** (1 / how)
    return [x / length for x in vector]


def _one(engine: Engine) -> Pooling:
    """One vector a text is what OpenAI's endpoint promises, also where the file has no pooling.

    Raises:
        ApiError: the context that there is gives one for each token.
    """
    if engine.info.generates:
        return "last"
    raise bad_request(
        "this server does not pool the vectors of tokens, and one for each text was asked for: start it with --pooling "
        "mean (cls, last), or ask /embedding for all of them", param="pooling",
    )  # fmt: skip


def _shown(vector: list[float], as_base64: bool) -> list[float] | str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode() if as_base64 else vector


def _format(fields: Fields) -> bool:
    found = fields.string("encoding_format", "float")
    if found not in ("float", "base64"):
        raise bad_request(f"encoding_format is {found!r:.32}, expected float or base64", param="encoding_format")
    return found == "base64"


def _pooling(fields: Fields, engine: Engine) -> Pooling:
    info = engine.info
    found = fields.string("pooling", info.pooling)
    if found not in get_args(Pooling):
        raise bad_request(f"pooling is {found!r:.32}, expected one of {', '.join(get_args(Pooling))}", param="pooling")
    if found == "rank" or (info.pooling == "rank" and not info.generates):
        raise ApiError(501, "ranks are no vectors of texts: ask /v1/rerank", kind="not_supported_error")
    if not info.generates and found != info.pooling:
        raise bad_request(
            f"pooling is {found}, this server was started for {info.pooling} (--pooling)", param="pooling"
        )
    return cast("Pooling", found)


def read_norm(fields: Fields) -> int:
    """By which norm vectors are scaled."""
    how = fields.integer("embd_normalize", -1, MOST_NORM)
    return EUCLIDEAN if how is None else how


def _input(fields: Fields) -> str:
    """The field that has the texts: `input` or, in llama-server's word, `content`."""
    return "content" if fields.get("input") is None and fields.get("content") is not None else "input"


def inputs(fields: Fields, engine: Engine, name: str) -> list[tuple[int, ...]]:
    """Tokens of each text of a field: those of prompts, and contents in parts as messages have them.

    Source: llama.cpp 0c1e570 tools/server/server-context.cpp, handle_embeddings_impl (tokenize_entry).
    """
    value = fields.get(name)
    found = [_joined(name, each) for each in value] if isinstance(value, list) else _joined(name, value)
    return [prompt.tokens for prompt in read_prompts(Fields({name: found}), engine, name)]


def _joined(name: str, value: Any) -> Any:
    """The text of `{"content": [{"type": "text", "text": ...}, ...]}`; what else it may be as it is."""
    if not isinstance(value, dict) or "content" not in value:
        return value
    parts = value["content"]
    if isinstance(parts, str):
        return parts
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
        raise bad_request(f"{name} has a content that is neither a string nor an array of parts", name)
    for part in parts:
        if part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise bad_request(
                f"{name} has a part that is no text, which this server does not support", name,
                code="unsupported_parameter",
            )  # fmt: skip
    return "".join(part["text"] for part in parts)
