"""Adapters, guesses by a draft and by looking back, a cache that is too small: all at once, drawn by chance."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ggufphys.params import Params
from server.engine.guessing import Guessing
from server.engine.llama.engine import LlamaEngine
from server.engine.model_info import Adapter
from server.engine.protocol import EngineStatus
from server.engine.request import ActiveAdapters
from server.engine.sampling import Sampling
from server.engine.scheduler.lookup import Lookups
from tests.server.chain_model import write_mixing_adapter, write_mixing_model
from tests.server.engine.llama.test_crowd import F32, TEXTS, TIMEOUT_S, ask, tokens_of
from tests.server.engine.llama.test_draft import draft_file

SETS: tuple[ActiveAdapters, ...] = ((), ((0, 1.0),), ((1, 1.0),), ((0, 0.5), (1, 0.5)))
PENALISED = Sampling(temperature=0, repeat_penalty=1.3, ignore_eos=True)
N_ASKED = 24


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model, one that is nearly it, and two adapters."""
    folder = tmp_path_factory.mktemp("together")
    return {
        "model": write_mixing_model(folder / "model.gguf"),
        "draft": write_mixing_model(folder / "draft.gguf", noise=0.1),
        "a": write_mixing_adapter(folder / "a.gguf", 1),
        "b": write_mixing_adapter(folder / "b.gguf", 2),
    }


def started(files: dict[str, Path], params: Params, guessing: Guessing | None = None) -> LlamaEngine:
    adapters = [Adapter(path=str(files[name]), scale=0.0) for name in ("a", "b")]
    engine = LlamaEngine(files["model"], params, adapters=adapters, guessing=guessing or Guessing())
    assert engine.wait_until_settled(TIMEOUT_S) is EngineStatus.READY, engine.error
    return engine


@pytest.fixture(scope="module")
def alone(files: dict[str, Path]) -> Iterator[LlamaEngine]:
    engine = started(files, Params(n_ctx=512, **F32))  # type: ignore[arg-type]
    yield engine
    engine.close()


def drawn(generator: random.Random) -> dict[str, Any]:
    """A request: a text that others have in common with it, how many tokens, and what it is computed with."""
    text = generator.choice(TEXTS[:4])
    fields: dict[str, Any] = {
        "text": generator.choice([text, f"{text}. {text}. {text[:9]}", text[: generator.randrange(3, 20)]]),
        "n_tokens": generator.choice([1, 9, 40]),
        "adapters": generator.choice(SETS),
    }
    if generator.random() < 0.2:
        fields["sampling"] = PENALISED
    return fields


@pytest.mark.parametrize("seed", range(6))
def test_as_if_alone(files: dict[str, Path], alone: LlamaEngine, seed: int) -> None:
    """With F32 weights, greedy answers with whatever is at work beside them are those of lone requests without, those
    of clients that leave do no harm, and in the end nothing is held.
    """
    generator = random.Random(seed)
    n_seq_max, unified = generator.choice([(3, True), (5, True), (2, False), (4, False)])
    n_ctx = 256 if unified else 256 * n_seq_max
    params = Params(n_ctx=n_ctx, n_seq_max=n_seq_max, kv_unified=unified, n_outputs_max=40, n_ubatch=32, **F32)  # type: ignore[arg-type]
    guessing = Guessing(
        lookups=Lookups(n_match=2, n_max=6) if seed % 3 != 1 else None,
        draft=draft_file(files["draft"], params, n_max=generator.choice([1, 4])) if seed % 3 else None,
        always=True,
    )
    asked = [drawn(generator) for _ in range(N_ASKED)]
    expected = [tokens_of(ask(alone, **fields, cache_prompt=False))[0] for fields in asked]
    engine = started(files, params, guessing)
    generations = [ask(engine, **fields, cache_prompt=generator.random() < 0.8) for fields in asked]
    leaving = set(generator.sample(range(N_ASKED), 4))
    for number in leaving:
        generations[number].cancel()
    answers = [None if i in leaving else tokens_of(each)[0] for i, each in enumerate(generations)]
    engine.close()
    counters = engine.counters

    assert answers == [None if i in leaving else tokens for i, tokens in enumerate(expected)]
    assert (counters.n_active, counters.n_waiting, counters.n_cells_busy) == (0, 0, 0)
    assert counters.n_drafted > 0
    assert len({tuple(tokens) for tokens in expected}) > N_ASKED / 3  # they do differ
