"""POST /v1/plan: what would this request cost, and when could it begin? GET /v1/memory: what holds the server's memory?

`/v1/plan` takes the body of a completion, with `messages` or `prompt`, of texts to embed, with `input` or `content`, or
of a query and documents to rank, and runs nothing.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from flask import Blueprint, Response, jsonify, request

from server.api.chat import request_of
from server.api.conversation.conversations import CONVERSING, Conversations
from server.api.embeddings import inputs
from server.api.options import read_options
from server.api.prompts import read_prompts
from server.api.rerank import pairs
from server.api.schema import Fields, read_body
from server.engine.llama.beside import N_PIECE
from server.engine.loop.texts import FULL
from server.engine.model_info import Tokens
from server.engine.request import GenerationRequest
from server.service import Service

OF_TEXT: Final = ("messages", "prompt")
UNKNOWN = "no answer has been generated yet, and no calibration of this machine is kept (ggufphys bench calibrate)"


def blueprint(service: Service, conversations: Conversations) -> Blueprint:
    """The endpoints."""
    routes = Blueprint("plan", __name__)

    @routes.post("/v1/plan")
    def plan() -> Response:
        fields = read_body(request)
        if not service.engine.info.generates or not any(fields.get(name) is not None for name in OF_TEXT):
            texts = to_embed(fields, service)
            if texts is not None:
                return jsonify(vectors_document(service, texts))
        options = read_options(fields, service.engine, supported=CONVERSING)
        if fields.get("messages") is not None:
            asked = [request_of(conversations.read(fields), conversations, options, service)]
        else:
            asked = [options.request(p.tokens, spans=p.spans) for p in read_prompts(fields, service.engine)]
        return jsonify(document(service, asked))

    @routes.get("/v1/memory")
    def memory() -> Response:
        return jsonify({**service.memory(), "cells": cells(service)})

    return routes


def document(service: Service, asked: list[GenerationRequest]) -> dict[str, Any]:
    """The plan of requests that come together."""
    info, counters = service.engine.info, service.engine.counters
    n_max = [_cells_of(each, info.n_ctx_seq) for each in asked]
    too_long = [len(each.prompt) for each in asked if len(each.prompt) >= info.n_ctx_seq]
    outlook = service.engine.forecast.outlook(asked[0])
    per_cell = service.cell_bytes
    n_cells = service.n_cells
    wait_s = outlook.wait_s
    if wait_s == 0.0 and counters.n_cells_busy + len(asked[0].prompt) + 1 > n_cells:
        wait_s = service.engine.forecast.place_s()
    rates = outlook.rates
    found: dict[str, Any] = {
        "object": "plan",
        "model": info.name,
        "requests": len(asked),
        "n_prompt_tokens": sum(len(each.prompt) for each in asked),
        "n_ctx": info.n_ctx_seq,
        "max_tokens": [each.max_tokens for each in asked],
        "cells": {"needed_at_most": sum(n_max), "of": n_cells, "busy": counters.n_cells_busy},
        "bytes": None if per_cell is None else {
            "cells_at_most": round(per_cell * sum(n_max)),
            "per_cell": per_cell,
            "new": 0,
            "why": "the cache is reserved when the model is loaded: a request takes cells of it, and nothing beside",
        },
        "batch_invariant": info.n_block > 0,
        "fits": not too_long,
        "admitted": "never" if too_long else "now" if wait_s == 0.0 else "later",
        "wait_s": None if too_long else wait_s,
        "ttft_s": None if too_long else outlook.ttft_s,
        "total_s": None if too_long else outlook.total_s,
        "expected_tokens": outlook.n_generated,
        "prompt_tokens_per_second": rates.prompt_per_s if rates else None,
        "tokens_per_second": rates.decode_per_s if rates else None,
        "basis": rates.basis if rates else None,
    }  # fmt: skip
    if rates is None:
        found["why_unknown"] = UNKNOWN
    if too_long:
        found["why_never"] = f"a prompt of {max(too_long)} tokens leaves no room in a context of {info.n_ctx_seq}"
    return found


def vectors_document(service: Service, texts: Sequence[Tokens]) -> dict[str, Any]:
    """The plan of texts to embed: no cells, and what a larger batch than any before adds to llama.cpp's outputs.

    Beside a context for text, they have one of their own, which is made for the first; how fast it is nobody measures.
    """
    info, counters, predicted = service.engine.info, service.engine.counters, service.ledger.predicted
    longest, n_tokens = max(map(len, texts)), sum(map(len, texts))
    n_max = info.n_text_max or info.n_ctx_seq
    fits = longest <= n_max
    n_batch = max(longest, min(n_tokens, FULL))
    n_more = max(0, min(n_batch, info.n_batch) - max(counters.n_batch_max, info.n_slots))
    row_bytes = 0 if isinstance(predicted, str) else predicted.output_bytes // info.n_slots
    new, why = n_more * row_bytes, "no cache is kept; of a batch larger than any before each token has a row of outputs"
    rate = counters.n_prompt_tokens / counters.decode_s if counters.decode_s else None
    if info.generates:
        n_pass = max(counters.n_embedded_max, min(longest, N_PIECE))
        then = replace(counters, n_embedders=max(1, counters.n_embedders), n_embedded_max=n_pass)
        new, why = service.ledger.growth(then) - service.ledger.growth(counters), "texts have a context of their own"
        rate = None
    found: dict[str, Any] = {
        "object": "plan", "model": info.name, "requests": len(texts), "n_prompt_tokens": n_tokens, "n_ctx": n_max,
        "cells": {"needed_at_most": 0, "of": 0, "busy": 0},
        "bytes": None if isinstance(predicted, str) else {
            "cells_at_most": 0, "per_cell": 0, "new": new, "why": why,
        },
        "fits": fits, "admitted": "now" if fits else "never", "wait_s": 0.0 if fits else None,
        "total_s": n_tokens / rate if fits and rate else None, "prompt_tokens_per_second": rate,
        "basis": "measured" if rate else None,
    }  # fmt: skip
    if not fits:
        found["why_never"] = f"a text of {longest} tokens is longer than {n_max}, which is all that is computed at once"
    return found


def to_embed(fields: Fields, service: Service) -> Sequence[Tokens] | None:
    """The texts that a request for vectors or ranks has; None: it has none, and the server generates.

    Raises ApiError as the endpoints of such requests do.
    """
    if any(fields.get(name) is not None for name in ("query", "documents", "texts")):
        return pairs(fields, service)[1]
    given = [name for name in ("input", "content", "prompt") if fields.get(name) is not None]
    if not given and service.engine.info.generates:
        return None
    return inputs(fields, service.engine, *(given[:1] or ["input"]))


def cells(service: Service) -> dict[str, int]:
    """The cache's cells: all, those in use (for later requests too), those that what is under way needs."""
    counters = service.engine.counters
    return {"total": service.n_cells, "used": counters.n_cells_used, "busy": counters.n_cells_busy}


def _cells_of(asked: GenerationRequest, n_ctx_seq: int) -> int:
    """A common prompt's cells count once, each answer's own beside them; the last token is never evaluated."""
    n_prompt = len(asked.prompt)
    n_answer = n_ctx_seq - n_prompt if asked.max_tokens is None else min(asked.max_tokens, n_ctx_seq - n_prompt)
    return n_prompt + asked.n * max(n_answer - 1, 0)
