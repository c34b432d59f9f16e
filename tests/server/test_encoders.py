"""Encoders behind the endpoints: vectors of texts, as refengine has them and llama-server answers."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient

import refengine
from ggufphys import UnsupportedError, open_gguf, predict_memory
from ggufphys.arch import rule_for
from ggufphys.embedded import MODEL
from ggufphys.frozen import replace
from ggufphys.params import Params
from server.accounts.growth import growth_of
from server.app import create_app
from server.config import ServerConfig
from server.engine.counters import Counters
from server.engine.llama.beside import beside
from server.engine.llama.engine import LlamaEngine
from server.engine.llama.waiting import Waiting
from server.engine.model_info import Adapter
from server.engine.protocol import EngineStatus
from server.engine.worker.supervised import SupervisedEngine
from server.left_open.vectors import vector_params
from tests.server.chain_model import write_mixing_adapter, write_mixing_model, write_ranking_model
from tests.server.conftest import numpy_engine
from tests.server.encoder_model import write_encoder

TEXTS = ["hello", "world, how are you?", "x" * 300, "The giant panda", "a", "bb " * 40]
POOLINGS = {"bert": "mean", "modern-bert": "cls", "gemma-embedding": "mean", "t5encoder": "last"}
NUMBERS = {"none": 0, "mean": 1, "cls": 2, "last": 3, "rank": 4}
POOLS: dict[str, Callable[[Any], Any]] = {
    "mean": lambda rows: rows.mean(axis=0), "cls": lambda rows: rows[0], "last": lambda rows: rows[-1],
}  # fmt: skip

Serve = Callable[..., FlaskClient]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serves a file for vectors; keywords are flags."""
    engines: list[LlamaEngine | SupervisedEngine] = []

    def start(path: Path, *, make: Any = LlamaEngine, **given: Any) -> FlaskClient:
        fields = {key: value for key, value in given.items() if key != "field_defaults"}
        engine = make(path, vector_params(Params(n_threads=1, **fields), given, path))
        engines.append(engine)
        assert engine.wait_until_settled(30) is EngineStatus.READY, engine.error
        return create_app(ServerConfig(field_defaults=given.get("field_defaults", {})), engine).test_client()

    yield start
    for engine in engines:
        engine.close()


def vectors(client: FlaskClient, texts: Any, **fields: Any) -> Any:
    """Those of /v1/embeddings, a row each."""
    found = client.post("/v1/embeddings", json={"input": texts, **fields})
    assert found.status_code == 200, found.get_json()
    return np.array([each["embedding"] for each in found.get_json()["data"]])


@pytest.mark.parametrize("name", POOLINGS)
def test_as_refengine(serve: Serve, tmp_path: Path, name: str) -> None:
    """What our numpy model makes of each token, pooled as the file says; all texts in one batch, or each alone."""
    path = write_encoder(tmp_path / "encoder.gguf", name, pooling=NUMBERS[POOLINGS[name]])
    client, model = serve(path), refengine.load(path, n_ctx=1024, n_ubatch=1024)

    together = vectors(client, TEXTS, embd_normalize=-1)
    alone = np.concatenate([vectors(client, [text], embd_normalize=-1) for text in TEXTS])
    tokens = [client.post("/tokenize", json={"content": t, "add_special": True}).get_json()["tokens"] for t in TEXTS]
    expected = [POOLS[POOLINGS[name]](model.embeddings(each)) for each in tokens]

    assert tokens[0][0] == 1
    assert together == pytest.approx(np.array(expected), abs=2e-3)
    assert together == pytest.approx(alone, abs=1e-3)


@pytest.mark.parametrize("pooling", ["mean", "cls", "last", "none"])
def test_in_numpy(serve: Serve, tmp_path: Path, pooling: str) -> None:
    """The numpy engine's vectors are llama.cpp's."""
    path = write_encoder(tmp_path / "encoder.gguf", "bert", pooling=NUMBERS[pooling])
    theirs = serve(path)
    ours = serve(path, make=numpy_engine, n_seq_max=1)

    found = [client.post("/embedding", json={"content": TEXTS[:2]}).get_json() for client in (ours, theirs)]
    for mine, other in zip(*found, strict=True):
        assert np.array(mine["embedding"]) == pytest.approx(np.array(other["embedding"]), abs=2e-3)
    assert ours.post("/v1/completions", json={"prompt": "hi"}).status_code == 501


def test_shapes(serve: Serve, tmp_path: Path) -> None:
    """Lists of texts and of tokens, fewer dimensions, base64, length 1, each token's vector as it is."""
    path = write_encoder(tmp_path / "encoder.gguf", "bert", pooling=1)
    client = serve(path)

    whole = vectors(client, ["hi", "ho"])
    assert whole.shape == (2, 256)
    assert np.linalg.norm(whole, axis=1) == pytest.approx(1)
    tokens = client.post("/tokenize", json={"content": "hi", "add_special": True}).get_json()["tokens"]
    assert vectors(client, tokens)[0] == pytest.approx(whole[0], abs=1e-6)
    assert vectors(client, "hi", dimensions=16).shape == (1, 16)
    answer = client.post("/v1/embeddings", json={"input": "hi", "encoding_format": "base64"}).get_json()
    assert isinstance(answer["data"][0]["embedding"], str)
    assert answer["usage"] == {"prompt_tokens": 4, "total_tokens": 4}
    for path_of in ("/embedding", "/embeddings"):
        (native,) = client.post(path_of, json={"content": "hi"}).get_json()
        assert native["embedding"][0] == pytest.approx(whole[0], abs=1e-6)


def test_contents(serve: Serve, tmp_path: Path) -> None:
    """Texts in parts as messages have them; `content` is answered in llama-server's own shape, wherever it is asked."""
    client = serve(write_encoder(tmp_path / "encoder.gguf", "bert", pooling=1))
    parts = {"content": [{"type": "text", "text": "h"}, {"type": "text", "text": "i"}]}
    expected = vectors(client, "hi")[0]

    for given in (parts, [parts], [{"content": "hi"}], {"content": "hi"}, {"prompt_string": "hi"}):
        assert vectors(client, given)[0] == pytest.approx(expected, abs=1e-6)
    for path in ("/v1/embeddings", "/embedding"):
        (native,) = client.post(path, json={"content": parts, "dimensions": 16}).get_json()
        assert native["embedding"] == [pytest.approx(expected[:16] / np.linalg.norm(expected[:16]), abs=1e-6)]
    image = {"content": [{"type": "image_url", "image_url": {"url": "data:"}}]}
    for wrong in (image, {"content": 5}, {"content": ["hi"]}, {"content": [{"type": "text"}]}):
        refused = client.post("/v1/embeddings", json={"input": [wrong]})
        assert (refused.status_code, refused.get_json()["error"]["param"]) == (400, "input")
    base64 = client.post("/embedding", json={"content": "hi", "encoding_format": "base64"})
    assert (base64.status_code, base64.get_json()["error"]["param"]) == (400, "encoding_format")


def test_tokens_without_pooling(serve: Serve, tmp_path: Path) -> None:
    """Each token's vector is as the model makes it; OpenAI's endpoint promises one a text and says so."""
    path = write_encoder(tmp_path / "encoder.gguf", "bert", pooling=1)
    client = serve(path, field_defaults={"pooling": "none"})
    rows = refengine.load(path, n_ctx=256, n_ubatch=256).embeddings([1, *(3 + byte for byte in b"hi"), 2])

    (first, second) = client.post("/embedding", json={"content": ["hi", "a"]}).get_json()
    refused = client.post("/v1/embeddings", json={"input": "hi"})

    assert np.array(first["embedding"]) == pytest.approx(rows, abs=2e-3)
    assert len(second["embedding"]) == 3
    assert refused.status_code == 400
    assert "--pooling" in refused.get_json()["error"]["message"]


def test_a_text_that_is_too_long(serve: Serve, tmp_path: Path) -> None:
    """llama.cpp would abort of it: it is 400, with the numbers, and the server goes on."""
    client = serve(write_encoder(tmp_path / "encoder.gguf", "bert", pooling=1), n_ubatch=16)

    found = client.post("/v1/embeddings", json={"input": ["a", "x" * 15]})
    error = found.get_json()["error"]
    assert (found.status_code, error["code"], error["param"]) == (400, "context_length_exceeded", "input[1]")
    assert (error["n_prompt_tokens"], error["n_ctx"]) == (17, 16)
    assert "--ubatch-size" in error["message"]
    assert vectors(client, ["x" * 14] * 3).shape == (3, 256)  # as many as fit, several passes


def test_no_longer_than_in_training(serve: Serve, tmp_path: Path) -> None:
    """Learned positions end there, and ggml would abort: whatever -c and -ub say."""
    path = write_encoder(tmp_path / "encoder.gguf", "bert", pooling=1)
    client = serve(path, n_ctx=1 << 16, n_ubatch=1 << 14)

    n_trained = 4096
    assert client.get("/v1/models").get_json()["data"][0]["meta"]["n_ctx"] == n_trained
    refused = client.post("/v1/embeddings", json={"input": [[5] * (n_trained + 1)]})
    assert refused.get_json()["error"]["n_ctx"] == n_trained
    assert "--ubatch-size" not in refused.get_json()["error"]["message"]
    assert vectors(client, [[5] * n_trained]).shape == (1, 256)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}]}),
        ("/v1/completions", {"prompt": "hi"}),
        ("/completion", {"prompt": "hi"}),
        ("/v1/messages", {"max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}),
        ("/v1/responses", {"input": "hi"}),
        ("/v1/rerank", {"query": "hi", "documents": ["a"]}),
    ],
)
def test_no_text(serve: Serve, tmp_path: Path, path: str, body: dict[str, Any]) -> None:
    """What generates is 501, as in llama-server, and so are ranks of a model that gives none; the rest is answered."""
    client = serve(write_encoder(tmp_path / "encoder.gguf", "bert", pooling=1))

    for stream in ({}, {"stream": True}):
        found = client.post(path, json={**body, **stream})
        assert found.status_code == 501
        assert "gives vectors" in found.get_json()["error"]["message"] or path == "/v1/rerank"
    for other in ("/health", "/props", "/slots", "/metrics", "/v1/models", "/v1/memory"):
        assert client.get(other).status_code == 200


def test_other_pooling(serve: Serve, tmp_path: Path) -> None:
    """There is one context, which pools in one way."""
    client = serve(write_encoder(tmp_path / "encoder.gguf", "bert", pooling=1))

    found = client.post("/v1/embeddings", json={"input": "hi", "pooling": "cls"})
    assert (found.status_code, found.get_json()["error"]["param"]) == (400, "pooling")


def test_plan(serve: Serve, tmp_path: Path) -> None:
    """What texts would cost: no cells, time once it is known, never where they are too long."""
    client = serve(write_encoder(tmp_path / "encoder.gguf", "bert", pooling=1), n_ubatch=64)
    before = client.post("/v1/plan", json={"input": ["a", "bb"]}).get_json()
    vectors(client, ["a"] * 20)
    after, never = (client.post("/v1/plan", json={"input": text}).get_json() for text in ("a", "x" * 63))

    assert client.post("/v1/plan", json={"input": {"content": "a"}}).get_json()["n_prompt_tokens"] == 3
    assert (before["requests"], before["n_prompt_tokens"], before["admitted"], before["basis"]) == (2, 7, "now", None)
    assert after["total_s"] > 0
    assert (never["admitted"], never["fits"], never["n_ctx"]) == ("never", False, 64)
    assert client.get("/v1/memory").get_json()["cells"]["total"] == 0
    figures = client.get("/metrics").get_data(as_text=True)
    assert "ggufphys:texts_embedded_total 20.0" in figures
    assert "ggufphys:request_seconds_count 1.0" in figures
    assert "llamacpp:prompt_tokens_total 60.0" in figures


def test_in_time(serve: Serve, tmp_path: Path) -> None:
    """Who does not wait any longer is told so, and his texts are forgotten: the next ones come at once."""
    client = serve(write_encoder(tmp_path / "encoder.gguf", "bert", pooling=1))
    body = {"input": ["x" * 500] * 400}

    late = client.post("/v1/embeddings", json=body, headers={"X-Deadline-Ms": "1"})
    assert (late.status_code, late.get_json()["error"]["code"]) == (429, "deadline")
    assert vectors(client, "hi").shape == (1, 256)


def test_many_at_once(serve: Serve, tmp_path: Path) -> None:
    """Texts of several requests share passes, and none gets another's vector."""
    client = serve(write_encoder(tmp_path / "encoder.gguf", "nomic-bert", pooling=1), make=SupervisedEngine)
    texts = [f"{i} " * (1 + i % 7) for i in range(60)]
    alone = vectors(client, texts)
    found: dict[int, Any] = {}

    def ask(i: int) -> None:
        found[i] = vectors(client.application.test_client(), texts[i::10])

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    for i in range(10):
        assert found[i] == pytest.approx(alone[i::10], abs=1e-5)


def test_a_worker_that_is_killed(serve: Serve, tmp_path: Path) -> None:
    """Who waits for vectors is told as who waits for text is: again, soon."""
    engines, found = list[SupervisedEngine](), list[Any]()

    def make(*given: Any) -> SupervisedEngine:
        engines.append(SupervisedEngine(*given))
        return engines[0]

    client = serve(write_encoder(tmp_path / "encoder.gguf", "bert", pooling=1), make=make)
    asking = threading.Thread(
        target=lambda: found.append(client.post("/v1/embeddings", json={"input": ["x" * 500] * 4000}))
    )
    asking.start()
    while not engines[0].counters.n_texts:
        asking.join(0.01)
    os.kill(engines[0].pid or 0, signal.SIGKILL)
    asking.join()

    (answer,) = found
    assert (answer.status_code, answer.get_json()["error"]["code"]) == (503, "worker_died")
    assert answer.headers["Retry-After"]


def test_ranks(serve: Serve, tmp_path: Path) -> None:
    """A classifier's scores of pairs, all of a request in few passes, are those of each alone."""
    client = serve(write_encoder(tmp_path / "encoder.gguf", "bert", pooling=4))

    def scores(documents: list[str]) -> dict[int, float]:
        found = client.post("/v1/rerank", json={"query": "What is a panda?", "documents": documents}).get_json()
        return {each["index"]: each["relevance_score"] for each in found["results"]}

    together = scores(TEXTS)
    assert [together[i] for i in range(6)] == pytest.approx([scores([text])[0] for text in TEXTS], abs=1e-3)
    refused = client.post("/v1/embeddings", json={"input": "hi"})
    assert (refused.status_code, refused.get_json()["error"]["type"]) == (501, "not_supported_error")


def test_a_decoder_reads_in_pieces(serve: Serve, tmp_path: Path) -> None:
    """With --embeddings: a text whose last token stands for it may be longer than a batch; its vector is the same."""
    path = write_mixing_model(tmp_path / "mixing.gguf", llama__pooling_type=3)
    whole, pieces = serve(path, n_ubatch=512, n_ctx=512), serve(path, n_ubatch=32, n_ctx=512)
    texts = ["y" * 400, "short", "z" * 31]

    assert vectors(pieces, texts) == pytest.approx(vectors(whole, texts), abs=3e-3)
    assert whole.post("/v1/completions", json={"prompt": "hi"}).status_code == 501
    refused = pieces.post("/v1/embeddings", json={"input": "y" * 600})
    assert refused.get_json()["error"]["n_ctx"] == 512


def test_how_threads_wait(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is looked at behind passes of texts, too: beside a neighbour llama.cpp's threads would spin for ever."""
    looks = list[Waiting]()
    monkeypatch.setattr(Waiting, "after_step", lambda waiting: looks.append(waiting))
    vectors(serve(write_encoder(tmp_path / "encoder.gguf", "bert", pooling=1)), ["a"] * 40)
    alone = len(looks)
    engine = LlamaEngine(write_mixing_model(tmp_path / "mixing.gguf"), Params(n_ctx=512, n_threads=1))
    assert engine.wait_until_settled(30) is EngineStatus.READY, engine.error
    engine.embed(((5,) * 200,), "mean")
    engine.close()

    assert alone == 2
    assert len(looks) == 2 + 2  # a pass for 32 texts and one for 8; two pieces


def test_no_ranks_without_a_classifier(tmp_path: Path) -> None:
    """Whatever a request asks for, beside text: llama.cpp would give a vector's first number for a score."""
    engine = LlamaEngine(write_mixing_model(tmp_path / "mixing.gguf"), Params(n_ctx=512, n_threads=1))
    assert engine.wait_until_settled(30) is EngineStatus.READY, engine.error
    client = create_app(ServerConfig(), engine).test_client()

    ranks = client.post("/v1/rerank", json={"query": "a", "documents": ["b"], "pooling": "rank"})
    scores = client.post("/v1/embeddings", json={"input": "a", "pooling": "rank"})
    engine.close()
    assert (ranks.status_code, "no classifier" in ranks.get_json()["error"]["message"]) == (501, True)
    assert scores.status_code == 501


@pytest.mark.parametrize("pooling", ["mean", "cls", "last", "none"])
def test_beside_text(serve: Serve, tmp_path: Path, pooling: str) -> None:
    """A decoder that generates, too, reads a long text in small pieces, and gives what a whole batch gives."""
    path = write_mixing_model(tmp_path / "mixing.gguf", llama__pooling_type=NUMBERS[pooling])
    whole = serve(path, n_ubatch=512, n_ctx=512)
    engine = LlamaEngine(path, Params(n_ctx=512, n_threads=1))
    assert engine.wait_until_settled(30) is EngineStatus.READY, engine.error
    beside = create_app(ServerConfig(), engine).test_client()

    expected, found = (each.post("/embedding", json={"content": "abc" * 100}).get_json() for each in (whole, beside))
    refused = beside.post("/v1/embeddings", json={"input": "x" * 600})
    engine.close()
    assert np.array(found[0]["embedding"]) == pytest.approx(np.array(expected[0]["embedding"]), abs=2e-2)
    assert refused.get_json()["error"]["n_ctx"] == 512


def test_memory_beside_text() -> None:
    """Contexts for embeddings are reckoned with once they are there: cache, outputs and what a pass touches."""
    params = Params(n_ctx=1024)
    grown = growth_of(MODEL, params)
    none, one, two = (grown(Counters(n_embedders=n, n_embedded_max=64)) for n in range(3))
    with open_gguf(MODEL) as gguf:
        own = predict_memory(gguf, replace(beside(params, 1024), embeddings=True, pooling="none"))

    assert own.context.n_ctx == 1024
    assert own.context_bytes < one - none < own.context_bytes + own.compute_bytes + (4 << 20)
    assert two - one == one - none


def test_adapters(serve: Serve, tmp_path: Path) -> None:
    """They count for vectors, at the scales that are set; at 0 it is as without."""
    path = write_mixing_model(tmp_path / "mixing.gguf", llama__pooling_type=3)
    adapter = Adapter(path=str(write_mixing_adapter(tmp_path / "lora.gguf", 5)))
    plain, with_it = serve(path), serve(path, make=partial(LlamaEngine, adapters=(adapter,)))

    expected, found = vectors(plain, TEXTS), vectors(with_it, TEXTS)
    with_it.post("/lora-adapters", json=[{"id": 0, "scale": 0.0}])
    assert np.abs(found - expected).max() > 0.01
    assert vectors(with_it, TEXTS, lora=[{"id": 0, "scale": 0.0}]) == pytest.approx(expected, abs=1e-4)
    assert vectors(with_it, TEXTS) == pytest.approx(expected, abs=1e-4)
    assert vectors(with_it, TEXTS, lora=[{"id": 0, "scale": 1.0}]) == pytest.approx(found, abs=1e-4)
    wrong = with_it.post("/v1/embeddings", json={"input": "a", "lora": [{"id": 7}]})
    assert (wrong.status_code, wrong.get_json()["error"]["param"]) == (400, "lora[0].id")


def test_an_adapter_by_name(serve: Serve, tmp_path: Path) -> None:
    """A model of its own, as for text: its vectors, under its name; the plain one stays as it is."""
    path = write_mixing_model(tmp_path / "mixing.gguf", llama__pooling_type=3)
    adapter = Adapter(path=str(write_mixing_adapter(tmp_path / "lora.gguf", 5)), name="pirate", scale=0.0)
    client = serve(path, make=partial(LlamaEngine, adapters=(adapter,)))
    plain = client.post("/v1/embeddings", json={"input": "hello"}).get_json()
    own = client.post("/v1/embeddings", json={"input": "hello", "model": f"{plain['model']}:pirate"}).get_json()

    assert own["model"] == f"{plain['model']}:pirate"
    assert own["data"][0]["embedding"] != pytest.approx(plain["data"][0]["embedding"], abs=1e-3)
    assert vectors(client, "hello")[0] == pytest.approx(plain["data"][0]["embedding"], abs=1e-4)


def test_embeddings_that_llama_cpp_dies_of(chain_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the architecture's row says that it would: refused for vectors alone, and 400 beside text."""
    rule = replace(rule_for("llama"), aborts_embedding=lambda h: "it would")
    for module in ("server.left_open.vectors", "server.engine.llama.embedder"):
        monkeypatch.setattr(f"{module}.rule_for", lambda arch: rule)
    with pytest.raises(UnsupportedError, match="it would"):
        vector_params(Params(), {}, chain_path)
    engine = LlamaEngine(chain_path, Params(n_ctx=256, n_threads=1))
    assert engine.wait_until_settled(30) is EngineStatus.READY, engine.error
    client = create_app(ServerConfig(), engine).test_client()

    found = client.post("/v1/embeddings", json={"input": "hi"})
    engine.close()
    assert (found.status_code, "no embeddings: it would" in found.get_json()["error"]["message"]) == (400, True)


def test_a_decoder_that_ranks(serve: Serve, tmp_path: Path) -> None:
    """With --rerank: qwen3's kind of classifier, scores as beside a context for text."""
    path = write_ranking_model(tmp_path / "ranking.gguf")
    alone = serve(path)
    engine = LlamaEngine(path, Params(n_ctx=512, n_threads=1))
    assert engine.wait_until_settled(30) is EngineStatus.READY, engine.error
    beside = create_app(ServerConfig(), engine).test_client()
    body = {"query": "What is a panda?", "documents": ["hi", "it is a bear", "The giant panda"]}

    found = [client.post("/v1/rerank", json=body).get_json()["results"] for client in (alone, beside)]
    engine.close()
    ours, theirs = ({each["index"]: each["relevance_score"] for each in each_found} for each_found in found)
    assert ours == pytest.approx(theirs, abs=1e-3)
