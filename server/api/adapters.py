"""LoRA adapters: which a request is computed with, by llama-server's `lora` or by the model it names.

Source: llama.cpp 0c1e570 tools/server/server-schema.cpp ("lora"), server-task.cpp, server_task_result_get_lora.
"""

from typing import Any, Final

from flask import Blueprint, Response, jsonify, request

from server.api.errors import bad_request
from server.api.schema import Fields, read_array
from server.engine.model_info import ModelInfo
from server.engine.request import ActiveAdapters
from server.service import Service

SCALE_MAX: Final = 1e6


def blueprint(service: Service) -> Blueprint:
    """What there is, and the scales of requests that ask for nothing."""
    routes = Blueprint("adapters", __name__)
    engine = service.engine

    @routes.get("/lora-adapters")
    def adapters() -> Response:
        return jsonify([
            {"id": i, "path": adapter.path, "scale": scale, "task_name": adapter.name, "prompt_prefix": ""}
            for i, (adapter, scale) in enumerate(zip(engine.info.adapters, engine.adapter_scales, strict=True))
        ])  # fmt: skip

    @routes.post("/lora-adapters")
    def scale() -> Response:
        asked = dict(read_scales(read_array(request), engine.info, "the body"))
        engine.adapter_scales = tuple(asked.get(i, 0.0) for i in range(len(engine.info.adapters)))
        return jsonify({"success": True})

    return routes


def read_adapters(fields: Fields, info: ModelInfo) -> ActiveAdapters | None:
    """What a request is computed with; None: it asks for nothing. Those that `lora` does not name are left out.

    Raises:
        ApiError: `lora` is no array of ids and scales, or has an id that is none.
    """
    asked = read_scales(fields.array("lora"), info, "lora")
    if asked:
        return tuple((number, scale) for number, scale in sorted(dict(asked).items()) if scale)
    named = adapter_named(fields.get("model"), info)
    if named is None:
        return None
    scale = info.adapters[named].named_scale
    return ((named, scale),) if scale else ()


def adapter_named(model: object, info: ModelInfo) -> int | None:
    """The number of the adapter that a model's name ends with, behind the served model's and a colon."""
    names = [f"{info.name}:{adapter.name}" if adapter.name else None for adapter in info.adapters]
    return names.index(model) if isinstance(model, str) and model in names else None


def served_name(model: object, info: ModelInfo) -> str:
    """What answers: the served model, with the adapter that the asked name ends with."""
    named = adapter_named(model, info)
    return info.name if named is None else f"{info.name}:{info.adapters[named].name}"


def read_scales(entries: list[Any], info: ModelInfo, param: str) -> list[tuple[int, float]]:
    """(number, scale) of each `{"id", "scale"}`; a scale that is not given is 0, as llama-server has it.

    Raises:
        ApiError: naming the first that is none.
    """
    found = []
    for i, entry in enumerate(entries):
        place = f"{param}[{i}]"
        if not isinstance(entry, dict):
            raise bad_request(f"{place} is {entry!r:.32}, expected an object with id and scale", param=place)
        fields = Fields(entry, path=f"{place}.")
        number, scale = fields.integer("id", 0, 2**31 - 1), fields.number("scale", 0.0, -SCALE_MAX, SCALE_MAX)
        if number is None or number >= len(info.adapters):
            there = f"ids from 0 to {len(info.adapters) - 1}" if info.adapters else "none: this server has no adapters"
            what = "missing" if number is None else str(number)
            raise bad_request(f"{place}.id is {what}, expected {there}", param=fields.param("id"))
        found.append((number, scale))
    return found
