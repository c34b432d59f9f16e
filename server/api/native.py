"""llama-server's own endpoints, in its shapes: props, slots, metrics."""

from typing import Final

from flask import Blueprint, Response, jsonify, request

from ggufphys import __version__
from server.api.conversation.conversations import Conversations
from server.api.errors import ApiError
from server.api.media import MARKER
from server.api.options import read_options
from server.api.schema import with_defaults
from server.api.settings import generation_settings
from server.service import Service

# What llama-server has with other flags, and this server has not: said so, in its words for it.
MISSING: Final = {
    "/props": "changing global properties", "/slots/<int:slot>": "slots action",
    "/v1/audio/transcriptions": "audio input", "/audio/transcriptions": "audio input",
}  # fmt: skip


def blueprint(service: Service, conversations: Conversations) -> Blueprint:
    """The endpoints."""
    routes = Blueprint("native", __name__)
    engine = service.engine

    @routes.get("/props")
    def props() -> Response:
        info = engine.info
        template, understood = conversations.capabilities(with_tools=True)  # llama-server tells of this one, too
        of_tools = {"chat_template_tool_use": template.source} if template is not service.chat_template else {}
        defaults = generation_settings(read_options(with_defaults({}), engine), None)
        return jsonify({
            "default_generation_settings": {"params": defaults, "n_ctx": info.n_ctx_seq},
            "total_slots": info.n_slots,
            "batch_invariant": info.n_block > 0,
            "model_alias": info.name,
            "modalities": {"vision": info.sees, "video": False, "audio": info.hears},
            "media_marker": MARKER,
            "endpoint_slots": service.config.shows_slots,
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
        if not service.config.shows_slots:
            raise ApiError(501, "This server does not show its slots (--no-slots)", kind="not_supported_error")
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
