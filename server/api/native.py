"""llama-server's own endpoints, in its shapes: tokens, props, slots, metrics."""

from typing import Any, Final

from flask import Blueprint, Response, jsonify, request

from ggufphys import __version__
from server.api.conversation.conversations import Conversations
from server.api.errors import ApiError, bad_request
from server.api.prompts import are_tokens, mixed_tokens
from server.api.schema import read_body
from server.api.settings import default_settings
from server.service import Service

# What llama-server has with other flags, and this server has not: said so, in its words for it.
MISSING: Final = {
    "/props": "changing global properties", "/slots/<int:slot>": "slots action",
    "/rerank": "reranking", "/reranking": "reranking", "/v1/rerank": "reranking", "/v1/reranking": "reranking",
}  # fmt: skip


def blueprint(service: Service, conversations: Conversations) -> Blueprint:
    """All of them."""
    routes = Blueprint("native", __name__)
    engine = service.engine

    @routes.post("/tokenize")
    def tokenize() -> Response:
        fields = read_body(request)
        add_special, parse_special = fields.boolean("add_special", False), fields.boolean("parse_special", True)
        content = fields.get("content")
        parts = content if isinstance(content, list) else [fields.string("content")]
        tokens = mixed_tokens(
            fields, "content", parts, engine, add_special=add_special, parse_special=parse_special
        )  # fmt: skip
        if not fields.boolean("with_pieces", False):
            return jsonify({"tokens": list(tokens)})
        pieces = engine.pieces(tokens)
        return jsonify({"tokens": [{"id": t, "piece": _piece(p)} for t, p in zip(tokens, pieces, strict=True)]})

    @routes.post("/detokenize")
    def detokenize() -> Response:
        fields = read_body(request)
        tokens = fields.array("tokens")
        if not are_tokens(tokens, engine.info.n_vocab):
            raise bad_request(
                f"tokens has something else than integers from 0 to {engine.info.n_vocab - 1}", param="tokens"
            )
        return jsonify({"content": engine.detokenize(tuple(tokens))})

    @routes.get("/props")
    def props() -> Response:
        info = engine.info
        template, understood = conversations.capabilities(with_tools=True)  # llama-server tells of this one, too
        of_tools = {"chat_template_tool_use": template.source} if template is not service.chat_template else {}
        return jsonify({
            "default_generation_settings": {"params": default_settings(info), "n_ctx": info.n_ctx_seq},
            "total_slots": info.n_slots,
            "model_alias": info.name,
            "modalities": {"vision": False, "video": False, "audio": False},
            "endpoint_slots": True,
            "endpoint_props": False,
            "endpoint_metrics": True,
            "chat_template": service.chat_template.source,
            **of_tools,
            "chat_template_caps": understood.as_llama_server(),
            "bos_token": info.bos_text,
            "eos_token": info.eos_text,
            "build_info": f"ggufphys-{__version__}",
            "is_sleeping": False,
        })  # fmt: skip

    @routes.get("/slots")
    def slots() -> Response:
        counters, info = engine.counters, engine.info
        if request.args.get("fail_on_no_slot") and counters.n_active >= info.n_slots:
            raise ApiError(503, "no slot available", kind="unavailable_error")
        return jsonify([
            {
                "id": i, "n_ctx": info.n_ctx_seq, "speculative": bool(info.guesses),
                "is_processing": i < counters.n_active,
            }
            for i in range(info.n_slots)
        ])  # fmt: skip

    @routes.get("/metrics")
    def metrics() -> Response:
        return Response(service.metrics.text(), mimetype="text/plain; version=0.0.4")

    def missing(**names: int) -> Response:
        what = MISSING[str(request.url_rule)]
        raise ApiError(501, f"This server does not support {what}", kind="not_supported_error")

    for rule in MISSING:
        routes.add_url_rule(rule, f"missing {rule}", missing, methods=["POST"])
    return routes


def _piece(piece: bytes) -> Any:
    """A token's text, or its bytes where they are no text by themselves."""
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return list(piece)
