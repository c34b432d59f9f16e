"""POST /v1/completions: go on from a text or from tokens."""

from collections.abc import Sequence
from typing import Any

from flask import Blueprint, Response, request

from server.api.errors import bad_request
from server.api.options import read_options
from server.api.replies import Json, Reply, disconnect_probe
from server.api.schema import Fields, read_body
from server.engine.protocol import Engine, GenerationRequest
from server.service import Service


class CompletionShape:
    """OpenAI's text_completion."""

    id_prefix = "cmpl-"
    kind = "text_completion"
    chunk_kind = "text_completion"

    def whole(self, text: str, reason: str) -> Json:
        """The choice of a whole answer."""
        return {"index": 0, "text": text, "logprobs": None, "finish_reason": reason}

    def piece(self, text: str, *, first: bool) -> Json:
        """The choice of a chunk with text."""
        del first
        return {"index": 0, "text": text, "logprobs": None, "finish_reason": None}

    def last(self, reason: str, *, first: bool) -> Json:
        """The choice of the chunk that says why it ended."""
        del first
        return {"index": 0, "text": "", "logprobs": None, "finish_reason": reason}


def blueprint(service: Service) -> Blueprint:
    """The endpoint, under OpenAI's path."""
    routes = Blueprint("completions", __name__)

    @routes.post("/v1/completions")
    def completions() -> Response:
        fields = read_body(request)
        options = read_options(fields)
        echo = fields.boolean("echo", False)
        tokens, text = _prompt(fields, service.engine)
        model = service.engine.info.name
        generation = service.engine.submit(
            GenerationRequest(
                prompt=tokens,
                max_tokens=options.max_tokens,
                sampling=options.sampling,
                stop=options.stop,
                cache_prompt=options.cache_prompt,
            )
        )
        return Reply(
            config=service.config,
            model=model,
            generation=generation,
            shape=CompletionShape(),
            options=options,
            disconnected=disconnect_probe(request),
            opening=text if echo else "",
        ).response()

    return routes


def _prompt(fields: Fields, engine: Engine) -> tuple[tuple[int, ...], str]:
    """The prompt's tokens and its text. One prompt a request: a string, an array of token ids, or an array of one."""
    value = fields.get("prompt")
    if value is None:
        raise bad_request("prompt is missing, expected a string or an array of token ids", param="prompt")
    if isinstance(value, list) and value and isinstance(value[0], str | list):
        if len(value) > 1:
            raise bad_request(
                f"prompt has {len(value)} entries, but one prompt a request is supported: send one request for each",
                param="prompt",
                code="unsupported_parameter",
            )
        value = value[0]
    if isinstance(value, str):
        text = fields.unicode("prompt", value)
        tokens = engine.tokenize(text)
    elif isinstance(value, list) and _are_tokens(value, engine.info.n_vocab):
        tokens = tuple(value)
        text = engine.detokenize(tokens)
    elif isinstance(value, list):
        raise bad_request(
            f"prompt has something else than token ids, which are integers from 0 to {engine.info.n_vocab - 1}",
            param="prompt",
        )
    else:
        raise fields.wrong("prompt", "a string or an array of token ids")
    if not tokens:
        raise bad_request("prompt is empty, and this model has no BOS token to start from", param="prompt")
    return tokens, text


def _are_tokens(values: Sequence[Any], n_vocab: int) -> bool:
    return all(type(value) is int and 0 <= value < n_vocab for value in values)
