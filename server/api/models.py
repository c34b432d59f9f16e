"""GET /v1/models: the model that is served, and with each named adapter, for clients of OpenAI's and Anthropic's."""

from datetime import UTC, datetime
from typing import Any

from flask import Blueprint, Response, jsonify

from server.api.errors import ApiError
from server.service import Service


def of_ollama(name: str, *, generates: bool = True, sees: bool = False) -> dict[str, object]:
    """The entry of those who ask as Ollama's clients do, with what llama-server leaves empty, too.

    Source: llama.cpp 0c1e570 tools/server/server-context.cpp, get_res_models.
    """
    details = {"parent_model": "", "format": "gguf", "family": "", "families": [""], "parameter_size": "",
               "quantization_level": ""}  # fmt: skip
    return {
        "name": name, "model": name, "modified_at": "", "size": "", "digest": "", "type": "model", "description": "",
        "tags": [""], "parameters": "",
        "capabilities": [*(["completion"] if generates else ["embedding"]), *(["multimodal"] if sees else [])],
        "details": details,
    }  # fmt: skip


def blueprint(service: Service) -> Blueprint:
    """The list, and the entry by its name."""
    routes = Blueprint("models", __name__)

    @routes.get("/models")
    @routes.get("/v1/models")
    def models() -> Response:
        entries = _entries(service)
        if service.siblings:
            return _listed(entries)
        info = service.engine.info
        sees = info.sees or info.hears
        return _listed(
            entries, models=[of_ollama(name, generates=info.generates, sees=sees) for name in _names(service)]
        )

    @routes.get("/v1/models/<path:name>")
    def model(name: str) -> Response:
        entries = _entries(service)
        for entry in entries:
            if name in (entry["id"], *entry.get("aliases", ())):
                return jsonify(entry)
        known = ", ".join(repr(entry["id"]) for entry in entries)
        raise ApiError(404, f"no model named {name!r}: this server has {known}", param="model", code="model_not_found")

    return routes


def _entries(service: Service) -> list[dict[str, Any]]:
    """Every model that can be named: all of several, or the one there is, by itself and with each named adapter."""
    if service.siblings:
        return [
            {**_head(service, each.name), "status": {"value": "loaded" if each.is_loaded else "unloaded"}}
            for each in service.siblings
        ]
    return [_entry(service, name) for name in _names(service)]


def _names(service: Service) -> list[str]:
    info = service.engine.info
    return [info.name, *(f"{info.name}:{adapter.name}" for adapter in info.adapters if adapter.name)]


def _entry(service: Service, name: str) -> dict[str, Any]:
    info = service.engine.info
    aliases = service.config.aliases if name == info.name else ()
    return {
        **_head(service, name),
        "aliases": list(aliases) or [name],
        "tags": [],
        "meta": {
            "n_vocab": info.n_vocab,
            "n_ctx": info.n_ctx_seq,
            "n_ctx_train": info.n_ctx_train,
            "n_embd": info.n_embd,
            "n_params": info.n_params,
            "size": info.model_bytes,
        },
    }


def _head(service: Service, name: str) -> dict[str, Any]:
    created_at = datetime.fromtimestamp(service.created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "id": name, "object": "model", "created": service.created, "owned_by": "ggufphys",
        "type": "model", "display_name": name, "created_at": created_at,
    }  # fmt: skip


def _listed(entries: list[dict[str, Any]], **more: Any) -> Response:
    ends = {"first_id": entries[0]["id"], "last_id": entries[-1]["id"]}
    return jsonify({"object": "list", "data": entries, "has_more": False, **ends, **more})
