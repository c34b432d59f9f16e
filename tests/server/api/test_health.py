"""What probes and model pickers see."""

from dataclasses import dataclass

import pytest
from flask.testing import FlaskClient

from server.app import create_app, service_of
from server.config import ServerConfig
from server.engine.counters import Counters
from server.engine.errors import EngineError
from server.engine.protocol import EngineStatus
from tests.server.fake_engine import FakeEngine


@pytest.mark.parametrize("path", ["/health", "/v1/health"])
def test_ready(client: FlaskClient, path: str) -> None:
    """A server that answers says ok."""
    response = client.get(path)

    assert response.status_code == 200
    assert response.get_json() == {"status": "ok"}


def test_loading(client: FlaskClient, fake: FakeEngine) -> None:
    """While the model loads the probe has llama-server's 503, word for word."""
    fake.status = EngineStatus.LOADING
    response = client.get("/health")

    assert response.status_code == 503
    assert response.get_json() == {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}


def test_failed(client: FlaskClient, fake: FakeEngine) -> None:
    """A load that failed is a 503 with its reason."""
    fake.status = EngineStatus.FAILED
    fake.error = EngineError("no memory")
    response = client.get("/health")

    assert response.status_code == 503
    assert "no memory" in response.get_json()["error"]["message"]


def test_stalled(client: FlaskClient, fake: FakeEngine) -> None:
    """An engine that is there and does not get on is no place to send requests to."""
    fake.complaint = "the engine's process has been silent for 20 s"
    response = client.get("/health")

    assert response.status_code == 503
    assert response.get_json()["error"]["message"] == "Stalled: the engine's process has been silent for 20 s"


def test_draining(fake: FakeEngine) -> None:
    """A draining server is not ready and takes no new work, but says when to come back."""
    app = create_app(ServerConfig(), fake)
    service_of(app).draining.set()
    client = app.test_client()
    refused = client.post("/v1/completions", json={"prompt": "a"})

    assert client.get("/health").status_code == 503
    assert refused.status_code == 503
    assert refused.get_json()["error"]["code"] == "shutting_down"
    assert int(refused.headers["Retry-After"]) > 0
    assert fake.requests == []


def test_models(client: FlaskClient) -> None:
    """The list has the one model; its entry is found by its name, another name is model_not_found."""
    entry = client.get("/v1/models").get_json()["data"][0]
    missing = client.get("/v1/models/org/other")

    assert entry["id"] == "fake"
    assert entry["meta"] == {
        "n_vocab": 1000, "n_ctx": 100, "n_ctx_train": 200, "n_embd": 8, "n_params": 12, "size": 34
    }  # fmt: skip
    assert client.get("/v1/models/fake").get_json() == entry
    assert missing.status_code == 404
    assert missing.get_json()["error"]["code"] == "model_not_found"


@dataclass(frozen=True)
class Named:
    """One of several models, that is not loaded."""

    name: str
    is_loaded: bool = False


def test_aliases(fake: FakeEngine) -> None:
    """A model of several names is listed once, with all of them, and found by each."""
    client = create_app(ServerConfig(aliases=("fake", "other")), fake).test_client()
    (entry,) = client.get("/v1/models").get_json()["data"]

    assert (entry["id"], entry["aliases"]) == ("fake", ["fake", "other"])
    assert client.get("/v1/models/other").get_json() == entry
    assert client.get("/v1/models/third").status_code == 404


def test_looking_at_models_wakes_none() -> None:
    """Which of several models there are is told without loading one, by list and by name, also of one that is not."""
    engine = FakeEngine()
    woken: list[object] = []
    engine.wake = woken.append  # type: ignore[attr-defined]
    app = create_app(ServerConfig(), engine)
    service_of(app).siblings = (Named("a"), Named("b"))
    client = app.test_client()

    assert client.get("/models").get_json()["data"][1]["id"] == "b"
    assert client.get("/v1/models/b").get_json()["status"] == {"value": "unloaded"}
    missing = client.get("/v1/models/c")
    assert missing.status_code == 404
    assert "'a', 'b'" in missing.get_json()["error"]["message"]
    assert woken == []
    assert client.get("/props").status_code == 200
    assert len(woken) == 1


def test_props_tell_the_defaults(fake: FakeEngine) -> None:
    """What requests have that say nothing is what the server's flags say, also of fields of conversations alone."""
    defaults = {"temperature": 0.25, "top_k": 7, "stop": ["x"], "reasoning_budget_tokens": 5, "grammar": 'root ::= "a"'}
    client = create_app(ServerConfig(field_defaults=defaults), fake).test_client()
    params = client.get("/props").get_json()["default_generation_settings"]["params"]

    assert {name: params[name] for name in ("temperature", "top_k", "stop", "stream")} == {
        "temperature": 0.25, "top_k": 7, "stop": ["x"], "stream": False,
    }  # fmt: skip
    assert params["grammar"] == 'root ::= "a"'


def test_in_flight(fake: FakeEngine) -> None:
    """A stream counts as in flight until it is closed, a whole answer until it is handed over."""
    app = create_app(ServerConfig(), fake)
    in_flight = service_of(app).in_flight
    client = app.test_client()
    client.get("/health").close()
    response = client.post("/v1/completions", json={"prompt": "a", "stream": True}, buffered=False)

    assert in_flight.count == 1
    assert not in_flight.wait_for_none(0.001)
    response.close()
    assert in_flight.wait_for_none(0.001)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"Authorization": "Bearer wrong"}, 401),
        ({"Authorization": "Bearer öther"}, 401),
        ({"Authorization": "Basic one"}, 401),
        ({"Authorization": "Bearer "}, 401),
        ({"Authorization": "one"}, 200),
        ({"X-Api-Key": "Bearer one"}, 200),
        ({"Authorization": "Bearer wrong", "X-Api-Key": "one"}, 200),
        ({"Authorization": "Bearer schlüssel"}, 200),
        ({"Authorization": "Bearer schlüssel".encode().decode("latin-1")}, 200),
        ({"Authorization": "Bearer one"}, 200),
        ({"Authorization": "bearer two"}, 200),
        ({"X-Api-Key": "two"}, 200),
    ],
)
def test_keys(fake: FakeEngine, headers: dict[str, str], status: int) -> None:
    """With keys, every endpoint but the probe asks for one of them, in any header and spelling that clients have."""
    client = create_app(ServerConfig(api_keys=("one", "two", "schlüssel")), fake).test_client()
    response = client.get("/v1/models", headers=headers)

    assert response.status_code == status
    if status == 401:
        assert response.get_json()["error"]["code"] == "invalid_api_key"
    assert client.get("/health").status_code == 200


def test_after_a_crash(fake: FakeEngine, client: FlaskClient) -> None:
    """While the engine's process is restarted /health is 503 and says why; afterwards it tells how often it died."""
    fake.status = EngineStatus.RESTARTING
    fake.error = RuntimeError("the engine's process died under way (SIGKILL)")
    restarting, refused = client.get("/health"), client.post("/v1/completions", json={"prompt": "a"})
    fake.status = EngineStatus.READY
    fake.counters = Counters(n_restarts=2)
    ready = client.get("/health")

    assert restarting.status_code == 503
    assert "SIGKILL" in restarting.json["error"]["message"]  # type: ignore[index]
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
    assert "SIGKILL" in refused.json["error"]["message"]  # type: ignore[index]
    assert ready.json == {"status": "ok", "restarts": 2, "last_crash": str(fake.error)}
