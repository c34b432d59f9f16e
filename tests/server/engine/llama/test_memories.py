"""Windowed, recurrent and hybrid models under load: their memories are gone on with only where that is exact."""

from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest

from ggufphys.gguf.values import ValueType
from ggufphys.gguf.writer import Typed
from ggufphys.params import Params
from server.engine.events import Finished, Piece, Started
from server.engine.generation import Generation
from server.engine.guessing import DraftFile, Guessing
from server.engine.llama.engine import LlamaEngine
from server.engine.protocol import EngineStatus
from server.engine.request import GenerationRequest
from server.engine.sampling import Sampling
from server.engine.scheduler.drafts import Drafting
from server.engine.scheduler.lookup import Lookups
from tests import archs
from tests.refengine import tiny

TIMEOUT_S = 60.0
N_VOCAB = 300  # of all small models
N_TOKENS = 6
GREEDY = Sampling(temperature=0, ignore_eos=True)
WORDS = {
    "tokenizer.ggml.model": "llama",
    "tokenizer.ggml.tokens": ["<unk>", "<s>", "</s>", *(f"t{i}" for i in range(N_VOCAB - 3))],
    "tokenizer.ggml.scores": [0.0] * N_VOCAB,
    "tokenizer.ggml.token_type": Typed([2, 3, 3, *([1] * (N_VOCAB - 3))], ValueType.INT32),
}
CACHE = {"type_k": "f32", "type_v": "f32", "flash_attn": "off", "n_threads": 1, "n_ubatch": 64}


def prompt(n: int, seed: int) -> tuple[int, ...]:
    return tuple(3 + (7919 * (i + 1) * (seed + 1) + i * i) % (N_VOCAB - 3) for i in range(n))


@pytest.fixture(scope="module", params=["gemma3", "mamba", "falcon-h1"])
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model with random weights of that architecture."""
    return written(tmp_path_factory.mktemp("memory"), request.param)


def written(folder: Path, arch: str) -> Path:
    """A small model with random weights, and words, of which requests are not made."""
    models = archs.models()
    model = models[arch]
    with_words = mock.Mock(metadata={**model.metadata, **WORDS})
    with mock.patch.object(archs, "models", return_value={**models, arch: with_words}):
        return tiny.write(folder / f"{arch}.gguf", arch, gain=1.0)


def started(path: Path, **fields: object) -> LlamaEngine:
    engine = LlamaEngine(path, Params(**(CACHE | fields)))  # type: ignore[arg-type]
    assert engine.wait_until_settled(TIMEOUT_S) is EngineStatus.READY, engine.error
    return engine


def ask(engine: LlamaEngine, tokens: tuple[int, ...], **fields: object) -> Generation:
    values = {"max_tokens": N_TOKENS, "sampling": GREEDY, "return_tokens": True, **fields}
    return engine.submit(GenerationRequest(prompt=tokens, **values))  # type: ignore[arg-type]


def read(generation: Generation) -> tuple[list[int], Finished]:
    """The first answer's tokens, and the last event."""
    tokens: list[int] = []
    for _ in range(generation.request.n):
        while not isinstance(event := generation.next_event(TIMEOUT_S), Finished):
            assert isinstance(event, Piece | Started), event
            if isinstance(event, Piece) and event.index == 0:
                tokens += [info.token for info in event.tokens]
        finished = event
    return tokens, finished


@pytest.mark.parametrize("unified", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["one cache", "divided"])
def test_as_if_evaluated_anew(path: Path, unified: bool) -> None:
    """Whatever slots hold and whoever runs beside it: each answer is that of a lone request with an empty memory; a
    prompt whose tokens were held but could not be gone on from says why.
    """
    first = prompt(600, 1)
    alone = started(path, n_ctx=1024)
    said, _ = read(ask(alone, first, cache_prompt=False))
    follow_up = (*first, *said, *prompt(20, 2))  # goes on from all that memory holds
    parted = (*first[:40], *prompt(30, 3))  # far in front of what a window keeps
    others = [prompt(100 + 10 * i, 4 + i) for i in range(4)]
    asked = [first, follow_up, parted, follow_up, *others]
    expected = [read(ask(alone, tokens, cache_prompt=False))[0] for tokens in asked]
    alone.close()
    engine = started(path, n_ctx=4096, n_seq_max=4, kv_unified=unified)
    crowd = [ask(engine, tokens) for tokens in others]
    answers = [read(ask(engine, tokens)) for tokens in asked[:4]]
    several = read(ask(engine, first, n=3))
    beside = [read(generation)[0] for generation in crowd]
    engine.close()

    assert [tokens for tokens, _ in answers] == expected[:4]
    assert beside == expected[4:]
    assert several[0] == expected[0]
    assert answers[1][1].usage.n_cached == len(first) + N_TOKENS - 1
    assert answers[2][1].usage.n_cached == 0
    assert answers[2][1].timings.reevaluated == ("window" if "gemma3" in path.name else "recurrent")


@pytest.mark.parametrize("unified", [True, False], ids=["one cache", "divided"])
def test_guesses(path: Path, unified: bool) -> None:
    """A window's memory goes back behind wrong guesses, answers being the same; where a state is kept none are made,
    and it says why.
    """
    asked = [(*prompt(90, 40 + i), *prompt(40, 40 + i)) for i in range(3)]  # whose end stood there before
    alone = started(path, n_ctx=512)
    expected = [read(ask(alone, tokens, max_tokens=60, cache_prompt=False))[0] for tokens in asked]
    alone.close()
    warnings: list[str] = []
    params = Params(**CACHE, n_ctx=2048, n_seq_max=3, kv_unified=unified, n_outputs_max=40)  # type: ignore[arg-type]
    guessing = Guessing(lookups=Lookups(n_match=1, n_max=8), always=True)
    engine = LlamaEngine(path, params, guessing=guessing, warn=warnings.append)
    assert engine.wait_until_settled(TIMEOUT_S) is EngineStatus.READY, engine.error
    answers = [read(generation) for generation in [ask(engine, tokens, max_tokens=60) for tokens in asked]]
    why_not = engine.info.why_no_guess
    engine.close()

    assert [tokens for tokens, _ in answers] == expected
    if "gemma3" in path.name:
        assert not warnings
        assert engine.counters.n_drafted > engine.counters.n_draft_accepted  # some were wrong
    else:
        assert engine.counters.n_drafted == 0
        assert "speculative decoding is off: the model keeps a state" in warnings[0]
        assert "cannot go back" in why_not


@pytest.mark.parametrize("unified", [True, False], ids=["one cache", "divided"])
def test_a_draft_model(path: Path, tmp_path: Path, unified: bool) -> None:
    """A windowed model guesses, its cache cut back behind wrong guesses, and is guessed for; one that keeps a state is
    refused, whichever of both it is.
    """
    params = Params(**CACHE, n_ctx=2048, n_seq_max=3, kv_unified=unified, n_outputs_max=12)  # type: ignore[arg-type]
    own = replace(params, n_outputs_max=3)
    if "gemma3" not in path.name:
        for target, draft, why in (
            (path, path, f"{path}: no draft model can guess for it: it keeps a state"),
            (written(tmp_path, "gemma3"), path, f"{path} cannot be a draft model: it keeps a state"),
        ):
            guessing = Guessing(draft=DraftFile(path=str(draft), params=own, drafting=Drafting()))
            engine = LlamaEngine(target, params, guessing=guessing)
            assert engine.wait_until_settled(TIMEOUT_S) is EngineStatus.FAILED
            assert why in str(engine.error)
            engine.close()
        return
    asked = [prompt(90 + 40 * i, 40 + i) for i in range(4)]
    alone = started(path, n_ctx=512)
    expected = [read(ask(alone, tokens, max_tokens=120, cache_prompt=False))[0] for tokens in asked]
    alone.close()
    guessing = Guessing(
        draft=DraftFile(path=str(path), params=replace(own, type_k="f16"), drafting=Drafting()), always=True
    )
    engine = LlamaEngine(path, params, guessing=guessing)
    assert engine.wait_until_settled(TIMEOUT_S) is EngineStatus.READY, engine.error
    answers = [read(generation)[0] for generation in [ask(engine, tokens, max_tokens=120) for tokens in asked]]
    counters = engine.counters
    engine.close()

    assert answers == expected
    assert 0.5 * counters.n_drafted < counters.n_draft_accepted <= counters.n_drafted
    assert counters.n_steps < 0.6 * sum(map(len, answers)) / 2


def test_too_small_a_cache(path: Path) -> None:
    """Answers that give way and are evaluated again are the same."""
    asked = [prompt(60 + 9 * i, 20 + i) for i in range(6)]
    alone = started(path, n_ctx=512)
    expected = [read(ask(alone, tokens, max_tokens=70, cache_prompt=False))[0] for tokens in asked]
    alone.close()
    engine = started(path, n_ctx=512, n_seq_max=4, kv_unified=True)
    answers = [read(generation)[0] for generation in [ask(engine, tokens, max_tokens=70) for tokens in asked]]
    engine.close()

    assert answers == expected
    if "mamba" not in path.name:  # whose states take the same room whatever their length
        assert engine.counters.n_preemptions > 0
