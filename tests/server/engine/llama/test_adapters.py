"""LoRA adapters on llama.cpp: a chain model whose answers an adapter changes in a known way."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ggufphys import UnsupportedError
from ggufphys.gguf.values import ValueType
from ggufphys.gguf.writer import Typed
from ggufphys.params import Params
from server.engine.events import Finished, Piece
from server.engine.llama.adapters import ALORA, check_adapter
from server.engine.llama.engine import LlamaEngine
from server.engine.loop.threaded import BaseEngine
from server.engine.model_info import Adapter
from server.engine.protocol import EngineStatus
from server.engine.request import ActiveAdapters, GenerationRequest
from server.engine.sampling import Sampling
from server.engine.worker.supervised import SupervisedEngine
from tests.server.chain_model import write_chain_adapter, write_chain_model, write_mixing_model

GREEDY = Sampling(temperature=0)
KINDS: dict[str, type[LlamaEngine] | type[SupervisedEngine]] = {"thread": LlamaEngine, "worker": SupervisedEngine}


@pytest.fixture(scope="module", params=list(KINDS.values()), ids=list(KINDS))
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BaseEngine]:
    folder = tmp_path_factory.mktemp("adapters")
    files = (
        write_chain_adapter(folder / "a.gguf", {"0": "A", "A": "B"}),
        write_chain_adapter(folder / "b.gguf", {"0": "X"}),
    )
    adapters = [Adapter(path=str(path)) for path in files]
    params = Params(n_ctx=2048, n_seq_max=4, kv_unified=True, n_threads=1)
    engine = request.param(write_chain_model(folder / "chain.gguf"), params, adapters=adapters)
    assert engine.wait_until_settled(30) is EngineStatus.READY, engine.error
    yield engine
    engine.close()


def answer(engine: BaseEngine, adapters: ActiveAdapters | None, n: int = 3) -> tuple[str, Finished]:
    asked = GenerationRequest(prompt=engine.tokenize("90"), max_tokens=n, sampling=GREEDY, adapters=adapters)
    generation, text = engine.submit(asked), ""
    while not isinstance(event := generation.next_event(20), Finished):
        text += event.text if isinstance(event, Piece) else ""
    return text, event


def test_each_request_has_its_own(engine: BaseEngine) -> None:
    """Adapters change the answers of those alone that ask for them, in their strength; nothing is left of them."""
    assert answer(engine, None)[0] == "123"
    assert answer(engine, ((0, 1.0),))[0] == "AB"
    assert answer(engine, ((1, 1.0),))[0] == "X"
    assert answer(engine, ((0, 0.05),))[0] == "123"
    assert answer(engine, ((0, 1.0), (1, 2.0)))[0] == "X"
    assert answer(engine, ((0, 2.0), (1, 1.0)))[0] == "AB"
    assert answer(engine, ())[0] == "123"


def test_what_one_computed_is_not_used_by_another(engine: BaseEngine) -> None:
    """A prompt that memory holds is used again with the same adapters; with others the reason says why not."""
    answer(engine, ((0, 0.25),))
    cached = answer(engine, ((0, 0.25),))[1]
    other = answer(engine, ((0, 0.125),))[1]

    assert cached.usage.n_cached == 2
    assert (other.usage.n_cached, other.timings.reevaluated) == (0, "adapters")


def test_together(engine: BaseEngine) -> None:
    """Long answers with several sets of adapters, all at once, are each as they are alone."""
    asked: list[ActiveAdapters] = [(), ((0, 0.05),), ((1, 0.05),), (), ((0, 0.05), (1, 0.05))]
    texts: dict[int, str] = {}

    def run(i: int) -> None:
        texts[i] = answer(engine, asked[i], n=60)[0]

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(asked))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert [texts[i] for i in range(len(asked))] == ["123456789012345678901234567890123456789012345678901234567890"] * 5


def test_what_is_no_adapter_of_the_model(tmp_path: Path) -> None:
    """A model, another model's adapter, and one that applies from a token on are refused, with the reason."""
    chain = write_chain_model(tmp_path / "chain.gguf")
    adapter = write_chain_adapter(tmp_path / "a.gguf", {"0": "A"})
    late = write_chain_adapter(tmp_path / "late.gguf", {"0": "A"}, **{ALORA: Typed([1, 2], ValueType.UINT32)})

    check_adapter(str(adapter), chain)
    with pytest.raises(ValueError, match="expected a LoRA adapter"):
        check_adapter(str(chain), chain)
    with pytest.raises(ValueError, match="does not fit"):
        check_adapter(str(adapter), write_mixing_model(tmp_path / "mixing.gguf"))
    with pytest.raises(UnsupportedError, match="aLoRA"):
        check_adapter(str(late), chain)
