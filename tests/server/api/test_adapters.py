"""LoRA adapters by request, by model name, and by llama-server's endpoint."""

from dataclasses import replace
from typing import Any

import pytest
from flask.testing import FlaskClient

from server.app import create_app
from server.config import ServerConfig
from server.engine.model_info import Adapter
from tests.server.fake_engine import INFO, FakeEngine

ADAPTERS = (
    Adapter(path="/m/one.gguf", scale=0.5),
    Adapter(path="/m/two.gguf", name="two", scale=0.0, named_scale=0.75),
)  # fmt: skip


@pytest.fixture
def fake() -> FakeEngine:
    return FakeEngine(info=replace(INFO, adapters=ADAPTERS))


@pytest.fixture
def client(fake: FakeEngine) -> FlaskClient:
    return create_app(ServerConfig(poll_s=0.01), fake).test_client()


@pytest.mark.parametrize(
    ("fields", "active", "model"),
    [
        ({}, ((0, 0.5),), "fake"),
        ({"lora": []}, ((0, 0.5),), "fake"),
        ({"lora": [{"id": 1, "scale": 2}]}, ((1, 2.0),), "fake"),
        ({"lora": [{"id": 1, "scale": 2}, {"id": 0, "scale": 1.5}]}, ((0, 1.5), (1, 2.0)), "fake"),
        ({"lora": [{"id": 0, "scale": 0}]}, (), "fake"),
        ({"lora": [{"id": 0}]}, (), "fake"),
        ({"model": "fake:two"}, ((1, 0.75),), "fake:two"),
        ({"model": "whatever:else"}, ((0, 0.5),), "fake"),
        ({"model": "fake:two", "lora": [{"id": 0, "scale": 1}]}, ((0, 1.0),), "fake:two"),
    ],
)
def test_by_request(client: FlaskClient, fake: FakeEngine, fields: dict[str, Any], active: object, model: str) -> None:
    """`lora` says which; else the model's name; else those that flags apply. All endpoints alike."""
    for path, body in (
        ("/v1/completions", {"prompt": "a"}),
        ("/completion", {"prompt": "a"}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}]}),
        ("/v1/responses", {"input": "a"}),
    ):
        response = client.post(path, json=body | fields)
        assert response.status_code == 200, response.text
        assert fake.requests[-1].adapters == active
        assert response.get_json()["model"] == model


@pytest.mark.parametrize(
    "lora", ["one", [1], [{"scale": 1}], [{"id": 2, "scale": 1}], [{"id": -1}], [{"id": 0, "scale": "much"}]]
)
def test_what_is_none(client: FlaskClient, fake: FakeEngine, lora: Any) -> None:
    """What is no adapter's number and scale is 400, here and at the endpoint."""
    assert client.post("/v1/completions", json={"prompt": "a", "lora": lora}).status_code == 400
    assert client.post("/lora-adapters", json=lora).status_code == 400
    assert not fake.requests


@pytest.mark.parametrize(
    ("second", "param"),
    [({"scale": 1}, "lora[1].id"), ({"id": 2}, "lora[1].id"), ({"id": -1}, "lora[1].id"),
     ({"id": 1, "scale": "much"}, "lora[1].scale"), (5, "lora[1]")],
)  # fmt: skip
def test_which_is_none(client: FlaskClient, second: Any, param: str) -> None:
    """What is wrong is named by its place."""
    error = client.post("/v1/completions", json={"prompt": "a", "lora": [{"id": 0}, second]}).get_json()["error"]
    assert error["param"] == param
    assert error["message"].startswith(f"{param} is ")


def test_for_all(client: FlaskClient, fake: FakeEngine) -> None:
    """The endpoint tells what there is, and sets the scales of requests that ask for nothing."""
    assert client.get("/lora-adapters").get_json() == [
        {"id": 0, "path": "/m/one.gguf", "scale": 0.5, "task_name": "", "prompt_prefix": ""},
        {"id": 1, "path": "/m/two.gguf", "scale": 0.0, "task_name": "two", "prompt_prefix": ""},
    ]
    assert client.post("/lora-adapters", json=[{"id": 1, "scale": 0.2}]).get_json() == {"success": True}
    client.post("/v1/completions", json={"prompt": "a"})

    assert fake.requests[-1].adapters == ((1, 0.2),)
    assert [each["scale"] for each in client.get("/lora-adapters").get_json()] == [0.0, 0.2]


def test_models(client: FlaskClient) -> None:
    """A named adapter is a model of its own."""
    assert [each["id"] for each in client.get("/v1/models").get_json()["data"]] == ["fake", "fake:two"]
    assert client.get("/v1/models/fake:two").get_json()["id"] == "fake:two"
    assert client.get("/v1/models/fake:three").status_code == 404
