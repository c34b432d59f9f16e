"""Pages of other origins: what a browser asks before it lets them use the server."""

import pytest
from flask.testing import FlaskClient

from ggufphys.flags.parser import Parser
from server.access.cors import CorsPolicy
from server.app import create_app
from server.config import ServerConfig
from server.flags.serve import add_arguments, config_of
from tests.server.fake_engine import FakeEngine

PAGE = "https://chat.example"
PATH = "/v1/chat/completions"
BODY = {"messages": [{"role": "user", "content": "hi"}]}


def served(policy: CorsPolicy, *keys: str) -> FlaskClient:
    """A client of a server with that policy."""
    return create_app(ServerConfig(cors=policy, api_keys=keys), FakeEngine()).test_client()


def test_a_page_asks_first() -> None:
    """A browser's question has no key, and is answered: any page may, by POST and with the headers that it wants."""
    asked = {
        "Origin": PAGE, "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,x-stainless-lang",
    }  # fmt: skip
    answer = served(CorsPolicy(), "secret").options(PATH, headers=asked)

    assert (answer.status_code, answer.data) == (204, b"")
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert "POST" in answer.headers["Access-Control-Allow-Methods"]
    assert answer.headers["Access-Control-Allow-Headers"] == asked["Access-Control-Request-Headers"]
    assert "Access-Control-Allow-Credentials" not in answer.headers


@pytest.mark.parametrize(
    ("body", "key", "status"),
    [(BODY, "secret", 200), ({**BODY, "stream": True}, "secret", 200), ({}, "secret", 400), (BODY, "wrong", 401)],
)
def test_every_answer_can_be_read(body: dict[str, object], key: str, status: int) -> None:
    """Answers, streams, errors and refusals alike: else a page sees no more than that something failed."""
    answer = served(CorsPolicy(), "secret").post(PATH, json=body, headers={"Origin": PAGE, "X-Api-Key": key})

    assert answer.status_code == status
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert "Retry-After" in answer.headers["Access-Control-Expose-Headers"]


@pytest.mark.parametrize(
    ("origins", "origin", "allowed"),
    [
        ("localhost", "http://localhost:5173", "http://localhost:5173"),
        ("localhost", "http://[::1]:3000", "http://[::1]:3000"),
        ("localhost", "http://localhost.evil.example", None),
        ("localhost", "http://[", None),
        (f"https://a.example, {PAGE}", PAGE, PAGE),
        (f"https://a.example, {PAGE}", "https://b.example", None),
        ("", PAGE, None),
    ],
)
def test_named_origins(origins: str, origin: str, allowed: str | None) -> None:
    """Where origins are named, those alone are told that they may, each by its name."""
    answer = served(CorsPolicy(origins=origins)).get("/health", headers={"Origin": origin})

    assert answer.status_code == 200
    assert answer.headers.get("Access-Control-Allow-Origin") == allowed
    assert answer.headers["Vary"] == "Origin"


def test_credentials() -> None:
    """With them an origin is told by its name that it may: browsers take no star then."""
    answer = served(CorsPolicy(credentials=True)).get("/health", headers={"Origin": PAGE})

    assert answer.headers["Access-Control-Allow-Origin"] == PAGE
    assert answer.headers["Access-Control-Allow-Credentials"] == "true"


def test_flags() -> None:
    """llama-server's flags say so; without them any page may, without credentials."""

    def policy(*flags: str) -> CorsPolicy:
        parser = Parser()
        add_arguments(parser)
        return config_of(parser.parse_args(flags)).cors

    assert policy() == CorsPolicy()
    assert policy(
        "--cors-origins", "localhost", "--cors-methods", "GET", "--cors-headers", "X", "--cors-credentials"
    ) == (CorsPolicy(origins="localhost", methods="GET", headers="X", credentials=True))


def test_others_are_told_nothing() -> None:
    """Programs that are no browsers get none of it."""
    assert not [name for name, _ in served(CorsPolicy()).get("/health").headers if name.startswith("Access-Control")]
