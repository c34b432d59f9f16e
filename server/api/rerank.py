"""POST /v1/rerank: how well does each document answer a query? By models whose file pools to ranks.

Jina's shape, and with `texts` in place of `documents` that of text-embeddings-inference, as llama-server has both.

Source: llama.cpp 0c1e570 tools/server/server-context.cpp, post_rerank; server-common.cpp, format_prompt_rerank,
format_response_rerank.
"""

import re
from typing import Any

from flask import Blueprint, Response, jsonify, request

from server.api.adapters import read_adapters, served_name
from server.api.conversation.plain import as_text, tokens_of
from server.api.errors import ApiError, bad_request
from server.api.prompts import PROMPTS_MAX
from server.api.replies import disconnect_probe
from server.api.schema import Fields, read_body
from server.engine.errors import TextLengthError
from server.engine.model_info import Tokens
from server.engine.protocol import Engine
from server.service import Service

PATHS = ("/v1/rerank", "/v1/reranking", "/rerank", "/reranking")


def blueprint(service: Service) -> Blueprint:
    """The endpoint, under all of its paths."""
    routes = Blueprint("rerank", __name__)

    def rerank() -> Response:
        fields, info = read_body(request), service.engine.info
        texts, prompts = pairs(fields, service)
        n_shown = fields.integer("top_n", 1, PROMPTS_MAX)
        try:
            found = service.embed(prompts, "rank", read_adapters(fields, info), disconnect_probe(request))
        except TextLengthError as error:
            raise _named(error, fields, service, [len(prompt) for prompt in prompts]) from None
        scores = [vectors[0][0] for vectors in found]
        ranked = sorted(range(len(texts)), key=lambda i: -scores[i])[:n_shown]
        if fields.get("texts") is not None:
            shown = fields.boolean("return_text", False)
            return jsonify([
                {"index": i, "score": scores[i], **({"text": texts[i]} if shown else {})} for i in ranked
            ])  # fmt: skip
        shown = fields.boolean("return_documents", False)
        n_tokens = sum(map(len, prompts))
        return jsonify({
            "model": served_name(fields.get("model"), info), "object": "list",
            "usage": {"prompt_tokens": n_tokens, "total_tokens": n_tokens},
            "results": [
                {"index": i, "relevance_score": scores[i], **({"document": {"text": texts[i]}} if shown else {})}
                for i in ranked
            ],
        })  # fmt: skip

    for path in PATHS:
        routes.add_url_rule(path, f"rerank {path}", rerank, methods=["POST"])
    return routes


def pairs(fields: Fields, service: Service) -> tuple[tuple[str, ...], tuple[Tokens, ...]]:
    """The documents of a request, and what the model reads of each with the query.

    Raises:
        ApiError: 501, the model does not rank; 400, there is no query, or nothing to rank.
    """
    info = service.engine.info
    pooling = fields.string("pooling", info.pooling) if info.generates else info.pooling
    if pooling != "rank" or info.pair is None or not info.scores:
        why = (
            "the model's file does not pool to ranks (--reranking has it done all the same)" if info.scores
            else "the model's file has no classifier"
        )  # fmt: skip
        raise ApiError(501, f"This server does not support reranking: {why}", kind="not_supported_error")
    query, texts = fields.string("query"), documents(fields)
    if fields.get("query") is None:
        raise bad_request("query is missing, expected a string", param="query")
    as_tokens = service.config.control_tokens_in_chat
    return texts, tuple(pair(service.engine, query, text, as_tokens=as_tokens) for text in texts)


def _named(error: TextLengthError, fields: Fields, service: Service, lengths: list[int]) -> TextLengthError:
    """Which of the pairs is too long, by what makes it so: the query where it would be without any document."""
    as_tokens = service.config.control_tokens_in_chat
    if len(pair(service.engine, fields.string("query"), "", as_tokens=as_tokens)) > error.n_ctx_seq:
        return error.named("query", "the query with a document")
    name = f"{_documents_field(fields)}[{lengths.index(error.n_prompt)}]"
    return error.named(name, f"{name} with the query")


def _documents_field(fields: Fields) -> str:
    return "documents" if fields.get("documents") is not None else "texts"


def documents(fields: Fields) -> tuple[str, ...]:
    """What is to be ranked. Raises ApiError: nothing is, or something else than texts."""
    name = _documents_field(fields)
    texts: list[Any] = fields.array(name)
    if not texts or not all(isinstance(text, str) for text in texts):
        raise bad_request(f"{name} is not an array of strings, one at least", param=name)
    if len(texts) > PROMPTS_MAX:
        raise bad_request(f"{name} has {len(texts):,} entries, at most {PROMPTS_MAX:,} are taken at a time", param=name)
    return tuple(fields.unicode(name, text) for text in texts)


def pair(engine: Engine, query: str, text: str, *, as_tokens: bool) -> Tokens:
    """A query and a document as the model reads them: by its file's template, else one behind the other.

    What control tokens they spell stays text, unless `as_tokens`.
    """
    info = engine.info
    assert info.pair is not None
    if not info.rank_template:
        before, between, after = info.pair
        read = (engine.tokenize(each, add_special=False, parse_special=False) for each in (query, text))
        return before + next(read) + between + next(read) + after
    said = {"{query}": query, "{document}": text}
    if not as_tokens:
        said = {name: as_text(each, engine) for name, each in said.items()}
    whole = re.sub("{query}|{document}", lambda found: said[found[0]], info.rank_template)
    return tokens_of(whole, engine, add_special=False)
