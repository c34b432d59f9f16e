"""Speculative decoding by request, and what is told of it."""

from dataclasses import replace

from flask.testing import FlaskClient

from server.app import create_app
from server.config import ServerConfig
from server.engine.counters import Counters
from server.engine.events import Piece, Started, Timings
from tests.server.fake_engine import INFO, FakeEngine, finished


def client_of(engine: FakeEngine) -> FlaskClient:
    return create_app(ServerConfig(poll_s=0.01), engine).test_client()


def test_fields() -> None:
    """llama-server's names say how many tokens are guessed at a time; the answer's settings say whether any are."""
    fake = FakeEngine(info=replace(INFO, guesses=("ngram-simple", "draft-simple")))
    client = client_of(fake)

    bodies: tuple[dict[str, float], ...] = (
        {},
        {"speculative.n_max": 0},
        {"speculative.n_max": 5, "speculative.n_min": 2, "speculative.p_min": 0.5},
    )
    replies = [client.post("/completion", json={"prompt": "a", **body}).get_json() for body in bodies]

    wishes = [(r.draft_max, r.draft_min, r.draft_p_min) for r in fake.requests]
    assert wishes == [(None, None, None), (0, None, None), (5, 2, 0.5)]
    types = [reply["generation_settings"]["speculative.types"] for reply in replies]
    assert types == ["ngram-simple,draft-simple", "none", "ngram-simple,draft-simple"]
    assert client.get("/slots").get_json()[0]["speculative"] is True


def test_a_server_that_guesses_nothing() -> None:
    """It says why to a request that asks for it, and answers others."""
    fake = FakeEngine(info=replace(INFO, why_no_guess="the model keeps a state"))
    client = client_of(fake)

    refused = client.post("/completion", json={"prompt": "a", "speculative.n_max": 5})

    assert refused.status_code == 400
    assert refused.get_json()["error"]["param"] == "speculative.n_max"
    assert refused.get_json()["error"]["message"].endswith("the model keeps a state")
    assert client.post("/completion", json={"prompt": "a", "speculative.n_max": 0}).status_code == 200
    assert client.get("/slots").get_json()[0]["speculative"] is False


def test_timings() -> None:
    """`draft_n` and `draft_n_accepted` are there where tokens were guessed, and only there."""
    times = Timings(queue_s=0, prompt_s=1, decode_s=1, n_drafted=7, n_draft_accepted=5)
    fake = FakeEngine([Started(), Piece(text="a"), replace(finished(), timings=times)])
    client = client_of(fake)

    timings = client.post("/v1/completions", json={"prompt": "a"}).get_json()["timings"]
    fake.events = (Started(), Piece(text="a"), finished())
    others = client.post("/v1/completions", json={"prompt": "a"}).get_json()["timings"]

    assert (timings["draft_n"], timings["draft_n_accepted"]) == (7, 5)
    assert not {"draft_n", "draft_n_accepted"} & others.keys()


def test_metrics() -> None:
    """llama-server's names; right guesses are no answers that took part in a step."""
    fake = FakeEngine()
    fake.counters = Counters(n_steps=10, n_generated_tokens=50, n_draft_accepted=30)
    assert "llamacpp:n_busy_slots_per_decode 2.0" in client_of(fake).get("/metrics").text
    metrics = client_of(FakeEngine()).get("/metrics").text

    for name in ("drafts", "draft_tokens", "accepted_tokens"):
        assert f"llamacpp:spec_decode_num_{name}_total 0.0" in metrics
