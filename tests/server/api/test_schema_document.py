"""The OpenAPI document, tried by schemathesis: whatever it makes of it, no answer is an internal error."""

import importlib.util
from typing import Any

import pytest

from server.app import create_app
from server.config import ServerConfig
from tests.server.fake_engine import FakeEngine


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("schemathesis") is None, reason="needs schemathesis")
@pytest.mark.filterwarnings("ignore")
def test_schemathesis() -> None:
    """Bodies within the schema, to every endpoint: an answer or a refusal, in the documented shape, never a failure."""
    import schemathesis
    from hypothesis import HealthCheck, Phase, given, settings
    from schemathesis.checks import not_a_server_error

    app = create_app(ServerConfig(poll_s=0.01), FakeEngine())
    schema = schemathesis.openapi.from_wsgi("/openapi.json", app)
    n_tried = 0
    for result in schema.get_all_operations():
        operation: Any = result.ok()  # type: ignore[union-attr]  # a document of ours has no invalid ones

        @settings(
            max_examples=40, deadline=None, database=None, phases=[Phase.generate], derandomize=True,
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        def run(case: "schemathesis.Case[Any]") -> None:
            nonlocal n_tried
            response = case.call()
            if response.status_code not in (501, 503):
                case.validate_response(response, checks=[not_a_server_error])
            if response.status_code >= 400 and case.method != "HEAD":
                of_anthropic = case.path.startswith("/v1/messages")  # whose errors say that they are
                assert set(response.json()) == ({"error", "type"} if of_anthropic else {"error"})
            n_tried += 1

        given(case=operation.as_strategy())(run)()
    assert n_tried > 300
