"""A draft model in llama.cpp: answers are those without, and one that does not fit is refused."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ggufphys import open_gguf
from ggufphys.context import resolve
from ggufphys.memory.attachments import Draft
from ggufphys.memory.attachments.predict import draft_params
from ggufphys.memory.attachments.tongues import check_tongues
from ggufphys.params import Params
from server.engine.guessing import DraftFile, Guessing
from server.engine.llama.engine import LlamaEngine
from server.engine.loop.threaded import BaseEngine
from server.engine.protocol import EngineStatus
from server.engine.sampling import Sampling
from server.engine.scheduler.drafts import Drafting
from server.engine.scheduler.lookup import Lookups
from server.engine.worker.supervised import SupervisedEngine
from tests.server.chain_model import write_mixing_model
from tests.server.engine.llama.test_crowd import F32, TEXTS, TIMEOUT_S, ask, tokens_of

DRAWN = Sampling(temperature=0.9, seed=7, ignore_eos=True)
PENALISED = Sampling(temperature=0, repeat_penalty=1.3, ignore_eos=True)
NOISES = {"itself": 0.0, "near": 0.1, "far": 2.0}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model, and others that are more or less like it."""
    folder = tmp_path_factory.mktemp("models")
    return {name: write_mixing_model(folder / f"{name}.gguf", noise=noise) for name, noise in NOISES.items()}


@pytest.fixture(scope="module")
def alone(models: dict[str, Path]) -> Iterator[LlamaEngine]:
    engine = LlamaEngine(models["itself"], Params(n_ctx=512, **F32))  # type: ignore[arg-type]
    assert engine.wait_until_settled(TIMEOUT_S) is EngineStatus.READY, engine.error
    yield engine
    engine.close()


def run_as(**fields: Any) -> Params:
    return Params(**{"n_ctx": 2048, "n_seq_max": 4, "kv_unified": True, "n_outputs_max": 20, **F32, **fields})


def draft_file(path: Path, params: Params, **drafting: Any) -> DraftFile:
    made = resolve(params, n_ctx_train=512, causal_attn=True)
    with open_gguf(path) as gguf:
        own = draft_params(Draft(gguf=gguf, type_k="f32", type_v="f32"), params, made)
    return DraftFile(path=str(path), params=own, drafting=Drafting(**drafting))


def started(
    path: Path,
    params: Params,
    draft: Path,
    *,
    kind: type = LlamaEngine,
    lookups: Lookups | None = None,
    **drafting: Any,
) -> Any:
    engine: BaseEngine = kind(
        path, params, guessing=Guessing(lookups=lookups, draft=draft_file(draft, params, **drafting), always=True)
    )
    assert engine.wait_until_settled(TIMEOUT_S) is EngineStatus.READY, engine.error
    return engine


@pytest.mark.parametrize("unified", [True, False], ids=["one cache", "divided"])
@pytest.mark.parametrize("name", NOISES)
def test_answers_are_the_same(models: dict[str, Path], alone: LlamaEngine, name: str, unified: bool) -> None:
    """With F32 weights, answers of a crowd with a draft model are those without, greedy, penalised and drawn by a
    seed, however good the draft; it is as good as it is alike; and timings add up to the counters.
    """
    ways: list[dict[str, Any]] = [{}, {"sampling": PENALISED}, {"sampling": DRAWN}, {"n_logprobs": 0}]
    asked = [(text, ways[i % len(ways)]) for i, text in enumerate(TEXTS[:12])]
    expected = [tokens_of(ask(alone, text, n_tokens=40, **way))[0] for text, way in asked]
    engine = started(models["itself"], run_as(kv_unified=unified), models[name], n_max=4)
    answers = [tokens_of(each) for each in [ask(engine, text, n_tokens=40, **way) for text, way in asked]]
    several = tokens_of(ask(engine, TEXTS[0], n_tokens=40, n=3), index=2)[0]
    off = tokens_of(ask(engine, TEXTS[0], n_tokens=40, draft_max=0))
    counters = engine.counters
    engine.close()

    assert [tokens for tokens, _ in answers] == expected
    assert several == off[0] == expected[0]
    assert off[1].timings.n_drafted == 0
    assert all(finished.timings.n_drafted > 0 for _, finished in answers)
    assert sum(finished.timings.n_drafted for _, finished in answers) <= counters.n_drafted
    greedy = [finished.timings for _, finished in answers[:: len(ways)]]
    share = sum(each.n_draft_accepted for each in greedy) / sum(each.n_drafted for each in greedy)
    low, high = {"itself": (0.95, 1.0), "near": (0.1, 0.9), "far": (0.0, 0.1)}[name]
    assert low <= share <= high
    assert counters.guess_s > 0


def test_both_ways(models: dict[str, Path], alone: LlamaEngine) -> None:
    """What stood there before is guessed first, and the draft model asked where nothing did."""
    prompt = f"{TEXTS[5]}. {TEXTS[5]}. {TEXTS[5][:9]}"
    expected = tokens_of(ask(alone, prompt, n_tokens=60))[0]
    engine = started(models["itself"], run_as(n_outputs_max=36), models["itself"], lookups=Lookups(n_match=2, n_max=8))
    info = engine.info
    tokens, finished = tokens_of(ask(engine, prompt, n_tokens=60))
    engine.close()

    assert tokens == expected
    assert info.guesses == ("ngram-simple", "draft-simple")
    assert finished.timings.n_draft_accepted > 20


def test_a_cache_too_small_for_all(models: dict[str, Path], alone: LlamaEngine) -> None:
    """Answers that give way and come back are the same, and guessed again."""
    expected = [tokens_of(ask(alone, text, n_tokens=60))[0] for text in TEXTS]
    engine = started(models["itself"], run_as(n_ctx=256), models["near"])
    answers = [tokens_of(each)[0] for each in [ask(engine, text, n_tokens=60) for text in TEXTS]]
    counters = engine.counters
    engine.close()

    assert answers == expected
    assert counters.n_preemptions > 0
    assert counters.n_draft_accepted > 0
    assert (counters.n_active, counters.n_waiting, counters.n_cells_busy) == (0, 0, 0)


def test_the_least_likely_that_is_guessed(models: dict[str, Path]) -> None:
    """A guess ends before a token that the draft is not as sure of as `p_min`, by flag or by request."""
    engine = started(models["itself"], run_as(), models["itself"], n_max=6, p_min=0.9)
    sure = tokens_of(ask(engine, TEXTS[0], n_tokens=60))[1].timings
    unsure = tokens_of(ask(engine, TEXTS[0], n_tokens=60, draft_p_min=0.0))[1].timings
    engine.close()

    assert 0 <= sure.n_drafted < 0.7 * unsure.n_drafted


DIFFERENT: dict[str, tuple[dict[str, Any], str]] = {
    "no tokenizer": ({"tokenizer__ggml__model": "no_vocab", "llama__vocab_size": 259}, "it has no tokenizer"),
    "kind": ({"tokenizer__ggml__model": "t5"}, "its tokenizer is of another kind (llama_vocab_type 4, expected 1)"),
    "bos": ({"tokenizer__ggml__add_bos_token": False}, "its tokenizer does not add BOS to a text, and the model's d"),
    "bos's number": ({"tokenizer__ggml__bos_token_id": 7}, "its BOS is token 7, and the model's 1"),
    "eos": ({"tokenizer__ggml__add_eos_token": True}, "its tokenizer adds EOS to a text, and the model's does not"),
    "a token": (
        {"tokenizer__ggml__tokens": ["<unk>", "<s>", "</s>", "<0x00>", "<0x01>", "<0x02>", "other",
                                     *(f"<0x{byte:02X}>" for byte in range(4, 256))]},
        "token 6 is 'other' to it, and '<0x03>' to the model",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", DIFFERENT)
def test_another_vocabulary(models: dict[str, Path], tmp_path: Path, what: str) -> None:
    """A draft whose tokens mean something else is refused at the start, with what differs, and by its file alone."""
    more, expected = DIFFERENT[what]
    draft = write_mixing_model(tmp_path / "draft.gguf", **more)
    params = run_as()
    engine = LlamaEngine(models["itself"], params, guessing=Guessing(draft=draft_file(draft, params)))

    assert engine.wait_until_settled(TIMEOUT_S) is EngineStatus.FAILED
    assert isinstance(engine.error, ValueError)
    assert "take a smaller model of the same family" in str(engine.error)
    assert f"cannot guess for {models['itself']}: {expected}" in str(engine.error)
    engine.close()
    with open_gguf(draft) as theirs, open_gguf(models["itself"]) as ours, pytest.raises(ValueError) as told:
        check_tongues(theirs, ours)
    assert str(told.value) == str(engine.error)


def test_a_worker_that_dies(models: dict[str, Path], alone: LlamaEngine) -> None:
    """The next one has the draft again."""
    expected = tokens_of(ask(alone, TEXTS[3]))[0]
    engine = started(models["itself"], run_as(), models["itself"], kind=SupervisedEngine)
    first = tokens_of(ask(engine, TEXTS[3]))
    pid = engine.pid
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + TIMEOUT_S
    while engine.pid == pid or engine.status is not EngineStatus.READY:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    second = tokens_of(ask(engine, TEXTS[3]))
    engine.close()

    assert first[0] == second[0] == expected
    assert first[1].timings.n_drafted == second[1].timings.n_drafted > 0
