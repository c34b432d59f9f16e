"""What a request leaves behind: nothing, as soon as it is answered, without Python's collector of cycles.

That looks at all objects only when there are a quarter more, which is hundreds of requests later.
"""

import gc
import http.client
import json
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest

from ggufphys.params import Params
from server.app import create_app
from server.config import ServerConfig
from server.engine.generation import Generation
from server.engine.loop.threaded import BaseEngine
from server.engine.protocol import EngineStatus
from server.engine.request import GenerationRequest
from server.net.http import HttpServer
from tests.server.conftest import MakeEngine

TIMEOUT_S = 20.0
BODIES: tuple[tuple[str, dict[str, object]], ...] = (
    ("/v1/completions", {}),
    ("/v1/completions", {"stream": True}),
    ("/v1/completions", {"stream": True, "logprobs": 1}),
    ("/v1/completions", {"prompt": ["1", "2"]}),
    ("/v1/completions", {"n": 2, "temperature": 1}),
    ("/completion", {"stream": True}),
    ("/v1/completions", {"temperature": -1}),
)


@pytest.fixture
def engine(make_engine: MakeEngine, chain_path: Path) -> Iterator[BaseEngine]:
    made = make_engine(chain_path, Params(n_ctx=256, n_threads=1))
    assert made.wait_until_settled(TIMEOUT_S) is EngineStatus.READY, made.error
    yield made
    made.close()


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
def test_a_request_goes_with_its_answer(engine: BaseEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every generation, however it was asked for; and one whose client has gone."""
    made: list[weakref.ref[Generation]] = []
    submit = engine.submit

    def noting(request: GenerationRequest) -> Generation:
        generation = submit(request)
        made.append(weakref.ref(generation))
        return generation

    monkeypatch.setattr(engine, "submit", noting)
    app = create_app(ServerConfig(poll_s=0.02), engine)
    with HttpServer(app, host="127.0.0.1", port=0, max_streams=4, max_body_bytes=4096) as server:

        def ask(path: str, fields: dict[str, object], n_read: int | None = None) -> None:
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT_S)
            body = {"prompt": "1", "max_tokens": 12, "n_predict": 12, "ignore_eos": True, **fields}
            connection.request("POST", path, json.dumps(body))
            assert connection.getresponse().read(n_read)
            connection.close()

        for path, fields in BODIES:
            ask(path, fields)
        ask("/v1/completions", {"max_tokens": 200, "stream": True}, n_read=1)
        deadline = time.monotonic() + TIMEOUT_S
        while any(each() is not None for each in made[:-1]) and time.monotonic() < deadline:
            time.sleep(0.02)
            ask(
                "/v1/completions", {"max_tokens": 1}
            )  # before which the forecast forgets those that have been cancelled

    assert len(made) >= len(BODIES)
    assert not [each() for each in made[:-1] if each() is not None]
