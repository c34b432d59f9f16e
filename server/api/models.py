"""GET /v1/models: the model that is served, and with each named adapter, for clients of OpenAI's and Anthropic's."""

from datetime import UTC, datetime
from typing import Any

from flask import Blueprint, Response, jsonify

from server.api.errors import ApiError
from server.service import Service, Sibling


def of_ollama(name: str, *, generates: bool = True) -> dict[str, object]:
    """The entry of those who ask as Ollama's clients do, with what llama-server leaves empty, too.

    Source: llama.cpp 0c1e570 tools/server/server-context.cpp, get_res_models.
    """
    details = {"parent_model": "", "format": "gguf", "family": "", "families": [""], "parameter_size": "",
               "quantization_level": ""}  # fmt: skip
    return {
        "name": name, "model": name, "modified_at": "", "size": "", "digest": "", "type": "model", "description": "",
        "tags": [""], "capabilities": ["completion" if generates else "embedding"], "parameters": "",
        "details": details,
    }  # fmt: skip


def blueprint(service: Service) -> Blueprint:
    """The list, and the entry by its name."""
    routes = Blueprint("models", __name__)

    def names() -> list[str]:
        info = service.engine.info
        return [info.name, *(f"{info.name}:{adapter.name}" for adapter in info.adapters if adapter.name)]

    def aliases(name: str) -> list[str]:
        own = service.config.aliases if name == service.engine.info.name else ()
        return list(own) or [name]

    def head(name: str) -> dict[str, object]:
        created_at = datetime.fromtimestamp(service.created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return {
            "id": name, "object": "model", "created": service.created, "owned_by": "ggufphys",
            "type": "model", "display_name": name, "created_at": created_at,
        }  # fmt: skip

    def listed(entries: list[dict[str, object]], **more: Any) -> Response:
        ends = {"first_id": entries[0]["id"], "last_id": entries[-1]["id"]}
        return jsonify({"object": "list", "data": entries, "has_more": False, **ends, **more})

    def entry(name: str) -> dict[str, object]:
        info = service.engine.info
        return {
            **head(name),
            "aliases": aliases(name),
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

    def sibling(each: Sibling) -> dict[str, object]:
        return {**head(each.name), "status": {"value": "loaded" if each.is_loaded else "unloaded"}}

    @routes.get("/models")
    @routes.get("/v1/models")
    def models() -> Response:
        if service.siblings:
            return listed([sibling(each) for each in service.siblings])
        generates = service.engine.info.generates
        ollamas = [of_ollama(name, generates=generates) for name in names()]
        return listed([entry(name) for name in names()], models=ollamas)

    @routes.get("/v1/models/<path:name>")
    def model(name: str) -> Response:
        if service.siblings:
            found = {each.name: sibling(each) for each in service.siblings}.get(name)
        else:
            found = next((entry(each) for each in names() if name in (each, *aliases(each))), None)
        if found is None:
            known = [each.name for each in service.siblings] or names()
            raise ApiError(
                404,
                f"no model named {name!r}: this server has {', '.join(map(repr, known))}",
                param="model",
                code="model_not_found",
            )
        return jsonify(found)

    return routes
