"""An image from a client's message to the answer, over HTTP, by a model that sees."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from bench.clip.files import write_clip
from bench.clip.shape import ClipShape
from ggufphys.params import Params
from server.app import create_app
from server.config import ServerConfig
from server.engine.llama.engine import LlamaEngine
from server.engine.media import Encoder
from server.engine.protocol import EngineStatus
from tests.server.seeing_model import picture, write_seeing_model
from tests.server.start.serving import serving

Json = dict[str, Any]
TIMEOUT_S = 30


def parts(seed: int) -> list[Json]:
    address = f"data:image/bmp;base64,{base64.b64encode(picture(seed)).decode()}"
    return [{"type": "image_url", "image_url": {"url": address}}, {"type": "text", "text": "what?"}]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlaskClient]:
    model, encoder = write_seeing_model(tmp_path_factory.mktemp("seeing"), "qwen2vl")
    engine = LlamaEngine(model, Params(n_ctx=512, n_threads=1), encoder=Encoder(path=str(encoder)))
    assert engine.wait_until_settled(TIMEOUT_S) is EngineStatus.READY, engine.error
    yield create_app(ServerConfig(ping_s=0.0), engine).test_client()
    engine.close()


def body(seed: int, **fields: Any) -> Json:
    messages = [{"role": "user", "content": parts(seed)}]
    return {"messages": messages, "max_tokens": 6, "temperature": 0, "return_tokens": True, **fields}


def test_an_answer_to_an_image(client: FlaskClient) -> None:
    """The same whole, as a stream and twice, and another one to another image."""
    whole = client.post("/v1/chat/completions", json=body(1)).get_json()
    n_image = client.post("/v1/chat/completions/input_tokens", json=body(1)).get_json()["input_tokens"]
    assert whole["usage"]["prompt_tokens"] == n_image
    again = client.post("/v1/chat/completions", json=body(1, n=2)).get_json()
    said = whole["choices"][0]["message"]["content"]
    assert [each["message"]["content"] for each in again["choices"]] == [said, said]
    assert again["usage"]["prompt_tokens_details"]["cached_tokens"] == n_image - 1
    stream = client.post("/v1/chat/completions", json=body(1, stream=True)).text
    events = [json.loads(line[6:]) for line in stream.splitlines() if line.startswith("data: {")]
    assert "".join(each["choices"][0]["delta"].get("content") or "" for each in events if each["choices"]) == said
    answers = {client.post("/v1/chat/completions", json=body(seed)).text for seed in range(2, 5)}
    assert len(answers) > 1


def test_what_it_takes_is_told(client: FlaskClient) -> None:
    plan = client.post("/v1/plan", json=body(1)).get_json()
    n_image = client.post("/v1/chat/completions/input_tokens", json=body(1)).get_json()["input_tokens"]
    assert plan["n_prompt_tokens"] == n_image
    assert plan["cells"]["needed_at_most"] >= n_image


def test_a_file_that_is_broken(client: FlaskClient) -> None:
    """Its beginning says what it is, and the rest is not there: llama.cpp's decoder refuses it."""
    file = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + (9).to_bytes(4, "big") * 2 + bytes(20)
    content = [{"type": "image_url", "image_url": {"url": base64.b64encode(file).decode()}}]
    reply = client.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": content}]})
    assert reply.status_code == 400
    assert "image or sound 0 of the request: it could not be read" in reply.get_json()["error"]["message"]
    assert client.post("/v1/chat/completions", json=body(1)).status_code == 200


def test_of_several_models_one_that_sees(tmp_path: Path) -> None:
    blind, _ = write_seeing_model(tmp_path, "llama")
    model, encoder = write_seeing_model(tmp_path, "gemma3")
    with serving("-m", f"a={blind}", "-m", f"b={model}", "-mm", f"b={encoder}", "-c", "512") as server:
        for name, status in (("a", 400), ("b", 200)):
            asked = server.post(**body(1, model=name))
            asked.full_url = f"{server.url}/v1/chat/completions"
            assert server.status(asked) == status


def test_a_projector_whose_images_depend_on_their_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from ggufphys.cli import main

    model, _ = write_seeing_model(tmp_path, "llama")
    encoder = write_clip(tmp_path / "mmproj.gguf", ClipShape(projector="hunyuanvl", text=64))
    assert main(["serve", str(model), "--mmproj", str(encoder), "--port", "0"]) == 4
    assert "projector type 'hunyuanvl' is not served yet" in capsys.readouterr().err
