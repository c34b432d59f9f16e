"""The page at / and the OpenAPI document: every endpoint is in it, and the page asks only for what there is."""

import re

from server.app import create_app
from server.config import ServerConfig
from tests.server.fake_engine import FakeEngine


def test_document_has_every_endpoint() -> None:
    """Each rule of the application is a path of the document, and nothing else is."""
    app = create_app(ServerConfig(api_keys=("key",)), FakeEngine())
    document = app.test_client().get("/openapi.json").get_json()
    rules = {re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule) for rule in app.url_map.iter_rules()}

    assert set(document["paths"]) == rules
    for operations in document["paths"].values():
        for operation in operations.values():
            assert operation["responses"]["default"]


def test_page_asks_for_endpoints_there_are() -> None:
    """The page needs no key, loads nothing from elsewhere, and calls only endpoints of the application."""
    app = create_app(ServerConfig(api_keys=("key",)), FakeEngine())
    response = app.test_client().get("/")
    text = response.get_data(as_text=True)
    rules = {rule.rule for rule in app.url_map.iter_rules()}

    assert response.status_code == 200
    assert "default-src 'self'" in response.headers["Content-Security-Policy"]
    assert not re.findall(r"https?://", text)
    asked = set(re.findall(r'(?:get|fetch)\("([^"]+)"', text))
    assert len(asked) >= 5
    assert {f"/{path}" for path in asked} <= rules
