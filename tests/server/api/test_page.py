"""The page at / and the OpenAPI document: every endpoint is in it, and the page asks only for what there is."""

import re
from dataclasses import replace
from typing import Any

import pytest

from server.app import create_app
from server.config import ServerConfig
from server.engine.model_info import Adapter, InfillTokens
from tests.server.api.test_fields import FIELDS
from tests.server.fake_engine import INFO, FakeEngine


def test_document_has_every_endpoint() -> None:
    """Each rule of the application is a path of the document, and nothing else is."""
    app = create_app(ServerConfig(api_keys=("key",)), FakeEngine())
    document = app.test_client().get("/openapi.json").get_json()
    rules = {re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule) for rule in app.url_map.iter_rules()}

    assert set(document["paths"]) == rules
    for operations in document["paths"].values():
        for operation in operations.values():
            assert operation["responses"]["default"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", {"prompt": "a"}),
        ("/completion", {"prompt": "a"}),
        ("/infill", {"input_prefix": "a", "input_suffix": "b"}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}]}),
        ("/v1/responses", {"input": "a"}),
    ],
)
def test_document_has_every_field(path: str, body: dict[str, Any]) -> None:
    """A field that is honoured is in the document, and what must be there is said to."""
    infill = InfillTokens(prefix=1, suffix=2, middle=3)
    info = replace(INFO, infill=infill, guesses=("draft-simple",), adapters=(Adapter(path="a"),), n_ctx_seq=4096)
    client = create_app(ServerConfig(poll_s=0.01), FakeEngine(info=info)).test_client()
    document = client.get("/openapi.json").get_json()["paths"][path]["post"]["requestBody"]
    schema = document["content"]["application/json"]["schema"]
    asked = FIELDS | {
        "speculative.n_max": 3,
        "speculative.n_min": 1,
        "speculative.p_min": 0.5,
        "lora": [{"id": 0, "scale": 1}],
    }
    honoured = {
        name for name, value in asked.items() if client.post(path, json=body | {name: value}).status_code == 200
    }
    extra = {"max_tokens"} if path == "/v1/responses" else set()  # which is max_output_tokens there

    assert len(honoured) > 40
    assert honoured - extra <= schema["properties"].keys()
    assert set(schema["required"]) == body.keys()


def test_page_asks_for_endpoints_there_are() -> None:
    """The page needs no key, loads nothing from elsewhere, and calls only endpoints of the application."""
    app = create_app(ServerConfig(api_keys=("key",)), FakeEngine())
    response = app.test_client().get("/")
    text = response.get_data(as_text=True)
    rules = {rule.rule for rule in app.url_map.iter_rules()}

    assert response.status_code == 200
    assert "default-src 'self'" in response.headers["Content-Security-Policy"]
    assert not re.findall(r"https?://", text)
    asked = set(re.findall(r'(?:get|ask)\("([^"]+)"', text))
    assert len(asked) >= 5
    assert {f"/{path}" for path in asked} <= rules
