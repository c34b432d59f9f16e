"""Which documents answer a query best? Shapes, and llama-server's own scores of a small model."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from ggufphys.params import Params
from server.app import create_app
from server.config import ServerConfig
from server.engine.llama.engine import LlamaEngine
from server.engine.loop.threaded import check_text
from server.engine.model_info import Tokens
from server.engine.protocol import EngineStatus, Vectors
from tests.server.chain_model import write_ranking_model
from tests.server.fake_engine import INFO, FakeEngine

RANKS = replace(INFO, pooling="rank", scores=True, pair=((1,), (2, 3), (4,)))
TEXTS = ["hi", "it is a bear", "bear"]
TEMPLATE = "<s>Q: {query}\nD: {document}\nA:"
PANDAS = {"query": "What is a panda?", "documents": ["hi", "it is a bear", "The giant panda"]}


@pytest.fixture
def client() -> FlaskClient:
    return create_app(ServerConfig(), FakeEngine(info=RANKS)).test_client()


@pytest.mark.parametrize("path", ["/v1/rerank", "/rerank", "/v1/reranking", "/reranking"])
def test_ranks(client: FlaskClient, path: str) -> None:
    """The best first, in Jina's shape; the fake's score is a prompt's length."""
    found = client.post(path, json={"query": "ab", "documents": TEXTS, "top_n": 2}).get_json()

    assert found == {
        "model": "fake", "object": "list", "usage": {"prompt_tokens": 36, "total_tokens": 36},
        "results": [{"index": 1, "relevance_score": 18.0}, {"index": 2, "relevance_score": 10.0}],
    }  # fmt: skip


def test_texts(client: FlaskClient) -> None:
    """With `texts` an array, in the shape of text-embeddings-inference; documents come back where that is asked for."""
    body = {"query": "a", "texts": ["x", "yy"], "return_text": True}
    documents = client.post("/rerank", json={"query": "a", "documents": ["x"], "return_documents": True}).get_json()

    assert client.post("/rerank", json=body).get_json() == [
        {"index": 1, "score": 7.0, "text": "yy"}, {"index": 0, "score": 6.0, "text": "x"},
    ]  # fmt: skip
    assert documents["results"][0]["document"] == {"text": "x"}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"documents": ["a"]}, "query"),
        ({"query": 5, "documents": ["a"]}, "query"),
        ({"query": "a"}, "texts"),
        ({"query": "a", "documents": []}, "documents"),
        ({"query": "a", "documents": ["a", 1]}, "documents"),
        ({"query": "a", "documents": ["a"], "top_n": 0}, "top_n"),
    ],
)
def test_refused(client: FlaskClient, body: dict[str, Any], param: str) -> None:
    """What can't be ranked is told by the field's name."""
    found = client.post("/v1/rerank", json=body)

    assert (found.status_code, found.get_json()["error"]["param"]) == (400, param)


def test_a_model_that_does_not_rank() -> None:
    """It is 501, as in llama-server, unless the server was started with --reranking."""
    plain = FakeEngine(info=replace(RANKS, pooling="none"))
    flagged = ServerConfig(field_defaults={"pooling": "rank"})
    body = {"query": "a", "documents": ["a"]}

    assert create_app(ServerConfig(), plain).test_client().post("/rerank", json=body).status_code == 501
    assert create_app(flagged, plain).test_client().post("/rerank", json=body).status_code == 200


def test_words_in_a_template() -> None:
    """What is put into a file's template is not looked through for its words again."""
    engine = FakeEngine(info=replace(RANKS, rank_template="{query}|{document}"))
    body = {"query": "{document}", "documents": ["a"]}

    found = create_app(ServerConfig(), engine).test_client().post("/rerank", json=body).get_json()
    assert found["usage"]["prompt_tokens"] == len("{document}|a")


@pytest.mark.parametrize(
    ("template", "n_tokens", "scores"),
    [
        ("", 114, [0.3338257968425751, 0.015924762934446335, 0.31036126613616943]),
        (TEMPLATE, 150, [0.014423605985939503, 0.33545568585395813, 0.6578097343444824]),
    ],
)
def test_as_llama_server(tmp_path: Path, template: str, n_tokens: int, scores: list[float]) -> None:
    """Its scores, of build b11312; it has all documents in one batch, which rounds otherwise."""
    path = write_ranking_model(tmp_path / "ranking.gguf", template=template)
    engine = LlamaEngine(path, Params(n_ctx=512, n_threads=1))
    assert engine.wait_until_settled(30) is EngineStatus.READY, engine.error
    found = create_app(ServerConfig(), engine).test_client().post("/v1/rerank", json=PANDAS).get_json()
    injected = {"query": "a", "documents": ["yy</s>"]}
    spelled = create_app(ServerConfig(), engine).test_client().post("/v1/rerank", json=injected).get_json()
    engine.close()

    assert found["usage"]["prompt_tokens"] == n_tokens
    by_index = {each["index"]: each["relevance_score"] for each in found["results"]}
    assert [by_index[i] for i in range(3)] == pytest.approx(scores, abs=3e-3)
    frame = 1 + len("Q:▁\nD:▁\nA:".encode()) if template else 3
    assert spelled["usage"]["prompt_tokens"] == frame + len("a") + len("yy</s>")  # its characters, not a token


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"query": "a", "documents": ["b", "x" * 60, "y" * 70]}, "documents[1]"),
        ({"query": "a", "texts": ["x" * 60]}, "texts[0]"),
        ({"query": "x" * 60, "documents": ["a"]}, "query"),
    ],
)
def test_what_is_too_long(body: dict[str, Any], param: str) -> None:
    """It is named as the client knows it, with the pair's length; a plan says of the same pair that it never fits."""
    client = create_app(ServerConfig(), Reading(info=replace(RANKS, generates=False, n_text_max=50))).test_client()
    found = client.post("/v1/rerank", json=body)
    error = found.get_json()["error"]
    plan = client.post("/v1/plan", json=body).get_json()

    assert (found.status_code, error["code"], error["param"]) == (400, "context_length_exceeded", param)
    assert (error["n_prompt_tokens"], error["n_ctx"]) == (65, 50)
    assert error["message"].startswith(f"{param} with the query" if param != "query" else "the query with a document")
    assert (plan["requests"], plan["admitted"]) == (len(body.get("documents") or body["texts"]), "never")
    assert client.post("/v1/plan", json={"query": "a", "documents": ["b"]}).get_json()["n_prompt_tokens"] == 6


def test_texts_that_are_too_long() -> None:
    """One of several has its place, one alone its field's name."""
    client = create_app(ServerConfig(), Reading(info=replace(INFO, n_text_max=50))).test_client()
    for path, body, param in (
        ("/v1/embeddings", {"input": ["a", "x" * 60]}, "input[1]"),
        ("/v1/embeddings", {"input": "x" * 60}, "input"),
        ("/embedding", {"content": ["a", "b", "x" * 60]}, "content[2]"),
    ):
        found = client.post(path, json=body)
        assert (found.status_code, found.get_json()["error"]["param"]) == (400, param)


def test_plan_of_texts_where_text_is_generated() -> None:
    """Texts to embed are planned as such: no cells of the cache, and their own bound."""
    client = create_app(ServerConfig(), Reading(info=replace(INFO, n_text_max=50))).test_client()
    fits, never = (client.post("/v1/plan", json={"input": ["a", text]}).get_json() for text in ("b", "x" * 60))
    text = client.post("/v1/plan", json={"prompt": "a", "input": "b"}).get_json()

    assert (fits["requests"], fits["n_ctx"], fits["cells"]["needed_at_most"], fits["fits"]) == (2, 50, 0, True)
    assert (never["admitted"], fits["prompt_tokens_per_second"]) == ("never", None)
    assert text["cells"]["needed_at_most"] > 0
    for body, param in (({}, "prompt"), ({"query": "a", "documents": ["b"]}, None)):
        assert client.post("/v1/plan", json=body).get_json()["error"]["param"] == param


class Reading(FakeEngine):
    """Which looks at texts as engines do."""

    def embed(self, prompts: tuple[Tokens, ...], *how: Any, **more: Any) -> tuple[Vectors, ...]:
        for prompt in prompts:
            check_text(prompt, self.info)
        return super().embed(prompts, *how, **more)
