"""Fixtures of the server's tests: an application over a fake engine, real engines over a model of known answers."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

import refengine
from ggufphys.params import Params
from server.app import create_app
from server.config import ServerConfig
from server.engine.in_numpy.engine import NumpyEngine, load_options
from server.engine.llama.engine import LlamaEngine
from server.engine.loop.threaded import BaseEngine
from server.engine.protocol import EngineStatus
from server.engine.worker.supervised import SupervisedEngine
from tests.server.chain_model import write_chain_model
from tests.server.fake_engine import FakeEngine


@pytest.fixture
def fake() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def client(fake: FakeEngine) -> FlaskClient:
    return create_app(ServerConfig(max_body_bytes=8192, ping_s=0.0, poll_s=0.01), fake).test_client()


@pytest.fixture(scope="session")
def chain_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_chain_model(tmp_path_factory.mktemp("models") / "chain.gguf")


def numpy_engine(path: Path, params: Params, **options: Any) -> NumpyEngine:
    """The engine over the numpy model, in the form of the other."""
    return NumpyEngine(refengine.load(path, **load_options(params, "f32")), **options)


MakeEngine = Callable[..., BaseEngine]
ENGINES: dict[str, MakeEngine] = {"llama.cpp": LlamaEngine, "worker": SupervisedEngine, "numpy": numpy_engine}


@pytest.fixture(scope="session", params=list(ENGINES.values()), ids=list(ENGINES))
def make_engine(request: pytest.FixtureRequest) -> MakeEngine:
    """Each of the engines, by a path and parameters."""
    made: MakeEngine = request.param
    return made


@pytest.fixture
def endless_engine(make_engine: MakeEngine, chain_path: Path) -> Iterator[BaseEngine]:
    """Room for 100,000 tokens: counting on from a digit takes it longer than any test waits."""
    engine = make_engine(chain_path, Params(n_ctx=100_000, n_threads=1), max_waiting=1)
    assert engine.wait_until_settled(30) is EngineStatus.READY, engine.error
    yield engine
    engine.close()


@pytest.fixture(scope="session")
def chain_engine(make_engine: MakeEngine, chain_path: Path) -> Iterator[BaseEngine]:
    engine = make_engine(chain_path, Params(n_ctx=512, n_ubatch=32, n_threads=1))
    assert engine.wait_until_settled(30) is EngineStatus.READY, engine.error
    yield engine
    engine.close()
