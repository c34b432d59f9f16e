"""Many answers side by side in llama.cpp: each is what it would be alone."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ggufphys.embedded import MODEL
from ggufphys.params import Params
from refengine import load
from server.engine.errors import TextLengthError
from server.engine.events import Failed, Finished, Piece, PromptScores, Started, TokenInfo
from server.engine.generation import Generation
from server.engine.guessing import NOTHING, Guessing
from server.engine.llama.engine import LlamaEngine
from server.engine.protocol import EngineStatus
from server.engine.request import GenerationRequest
from server.engine.sampling import Grammar, Sampling
from server.engine.scheduler.lookup import Lookups
from tests.server.chain_model import write_mixing_model

GREEDY = Sampling(temperature=0, ignore_eos=True)
TIMEOUT_S = 60.0
F32 = {"type_k": "f32", "type_v": "f32", "flash_attn": "off", "n_threads": 1}
WORDS = ["the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "and", "runs", "away", "from", "here"]
LOOKUPS = Guessing(lookups=Lookups(n_match=2, n_max=8), always=True)
TEXTS = [" ".join(WORDS[: 3 + i % 10]) + f" number {i}" for i in range(24)]


def tokens_of(generation: Generation, index: int = 0) -> tuple[list[int], Finished]:
    tokens: list[int] = []
    finished = None
    for _ in range(generation.request.n):
        while not isinstance(event := generation.next_event(TIMEOUT_S), Finished):
            assert not isinstance(event, Failed | None), event
            if isinstance(event, Piece) and event.index == index:
                tokens += [info.token for info in event.tokens]
        finished = event if event.index == index else finished
    assert finished is not None
    return tokens, finished


@pytest.fixture(scope="module")
def mixing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mixing_model(tmp_path_factory.mktemp("models") / "mixing.gguf")


def started(path: Path, *, guessing: Guessing = NOTHING, **fields: object) -> LlamaEngine:
    engine = LlamaEngine(path, Params(**(F32 | fields)), guessing=guessing)  # type: ignore[arg-type]
    assert engine.wait_until_settled(TIMEOUT_S) is EngineStatus.READY, engine.error
    return engine


@pytest.fixture(scope="module")
def alone(mixing: Path) -> Iterator[LlamaEngine]:
    engine = started(mixing, n_ctx=512)
    yield engine
    engine.close()


def ask(engine: LlamaEngine, text: str, n_tokens: int = 24, **fields: object) -> Generation:
    values = {"max_tokens": n_tokens, "sampling": GREEDY, "return_tokens": True, **fields}
    return engine.submit(GenerationRequest(prompt=engine.tokenize(text), **values))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("n_seq_max", "unified", "n_ctx"),
    [(8, True, 2048), (8, False, 2048), (24, True, 4096), (8, True, 256)],
    ids=["one cache", "divided", "24 at once", "too small for all"],
)
def test_as_if_alone(mixing: Path, alone: LlamaEngine, n_seq_max: int, unified: bool, n_ctx: int) -> None:
    """With F32 weights, greedy answers among two dozen are those of lone requests, also when the cache is too small
    for all of them; in the end no cell is needed and nobody waits.
    """
    expected = [tokens_of(ask(alone, text))[0] for text in TEXTS]
    engine = started(mixing, n_ctx=n_ctx, n_seq_max=n_seq_max, kv_unified=unified)
    generations = [ask(engine, text) for text in TEXTS]
    answers = [tokens_of(generation)[0] for generation in generations]
    engine.close()
    counters = engine.counters

    assert answers == expected
    assert (counters.n_active, counters.n_waiting, counters.n_cells_busy) == (0, 0, 0)
    assert (counters.n_preemptions > 0) == (n_ctx == 256)
    assert counters.n_generated_tokens > 2 * counters.n_steps  # they did run side by side


@pytest.mark.parametrize("unified", [True, False])
def test_others_cells_change_no_bit(unified: bool) -> None:
    """With flash attention, which leaves out what is masked, log-probabilities of a model of halves are the same to
    the bit whatever else the cache holds, and wherever an answer's cells lie.
    """

    def told(engine: LlamaEngine, text: str) -> list[tuple[int, bytes, float]]:
        generation, found = ask(engine, text, n_logprobs=3, cache_prompt=False), list[tuple[int, bytes, float]]()
        while not isinstance(event := generation.next_event(TIMEOUT_S), Finished):
            assert not isinstance(event, Failed | None), event
            if isinstance(event, Piece):
                found += [top for info in event.tokens for top in info.top]
        return found

    engine = started(
        MODEL, n_ctx=2048, n_seq_max=4, kv_unified=unified, type_k="f16", type_v="f16", flash_attn="on"
    )  # fmt: skip
    expected = told(engine, TEXTS[0])
    among = []
    for text in TEXTS[1:7]:
        tokens_of(ask(engine, text * 8))
        among.append(told(engine, TEXTS[0]))
    engine.close()

    assert len(expected) == 3 * 24
    assert among == [expected] * 6


@pytest.mark.parametrize("unified", [True, False])
def test_guessed_tokens_change_nothing(mixing: Path, alone: LlamaEngine, unified: bool) -> None:
    """With F32 weights, greedy answers with guesses are those without, byte for byte, be the guesses right or wrong;
    log-probabilities too, to a rounding error; and timings say how many were right.
    """
    prompts = [f"{text}. {text}. {text[:9]}" for text in TEXTS[:6]]
    expected = [tokens_of(ask(alone, text, n_tokens=60, n_logprobs=0)) for text in prompts]
    engine = started(mixing, n_ctx=4096, n_seq_max=4, kv_unified=unified, n_outputs_max=36, guessing=LOOKUPS)
    answers = [tokens_of(each) for each in [ask(engine, text, n_tokens=60, n_logprobs=0) for text in prompts]]
    off = tokens_of(ask(engine, prompts[0], n_tokens=60, draft_max=0))
    engine.close()

    assert [tokens for tokens, _ in answers] == [tokens for tokens, _ in expected]
    assert off[0] == expected[0][0]
    assert sum(finished.timings.n_drafted for _, finished in answers) == engine.counters.n_drafted > 0
    assert engine.counters.n_draft_accepted == sum(finished.timings.n_draft_accepted for _, finished in answers)
    assert (off[1].timings.n_drafted, expected[0][1].timings.n_drafted) == (0, 0)


@pytest.mark.parametrize("unified", [True, False])
def test_several_answers(mixing: Path, alone: LlamaEngine, unified: bool) -> None:
    """`n` answers come from one evaluation of the prompt: greedy ones alike, drawn ones by seeds of their own."""
    engine = started(mixing, n_ctx=1024, n_seq_max=4, kv_unified=unified)
    expected = tokens_of(ask(alone, TEXTS[0]))[0]
    generation = ask(engine, TEXTS[0], n=4)
    alike, _ = tokens_of(generation, index=3)
    drawn = Sampling(temperature=1.5, seed=5, ignore_eos=True)
    many = [tokens_of(ask(engine, TEXTS[0], n=4, sampling=drawn), index=i)[0] for i in (0, 1)]
    single = tokens_of(ask(engine, TEXTS[0], sampling=drawn))[0]
    engine.close()

    assert alike == expected
    assert many[0] != many[1]
    assert many[0][:4] == single[:4]
    assert engine.counters.n_prompt_tokens == len(generation.request.prompt) + 3  # a token for each later request


def test_a_shared_prefix(mixing: Path, alone: LlamaEngine) -> None:
    """Prompts that arrive together with a long beginning in common evaluate it once, and answer as if alone."""
    prefix = "once upon a time " * 8
    texts = [prefix + text for text in TEXTS[:8]]
    expected = [tokens_of(ask(alone, text, 8))[0] for text in texts]
    engine = started(mixing, n_ctx=4096, n_seq_max=8, kv_unified=True)
    generations = [ask(engine, text, 8) for text in texts]
    answers = [tokens_of(generation) for generation in generations]
    engine.close()
    n_prefix = len(alone.tokenize(prefix))
    n_rest = sum(len(generation.request.prompt) - n_prefix for generation in generations)

    assert [tokens for tokens, _ in answers] == expected
    assert engine.counters.n_prompt_tokens <= 1.1 * (n_prefix + n_rest)


def test_log_probabilities(mixing: Path) -> None:
    """Those of the prompt's and of generated tokens are the reference engine's, each beside its own token."""
    engine = started(mixing, n_ctx=256, n_seq_max=2, kv_unified=True)
    request = GenerationRequest(
        prompt=engine.tokenize(TEXTS[3]), max_tokens=6, sampling=GREEDY, n_logprobs=3, n_prompt_logprobs=2
    )
    generation = engine.submit(request)
    infos: list[TokenInfo] = []
    while not isinstance(event := generation.next_event(TIMEOUT_S), Finished):
        assert not isinstance(event, Failed | None), event
        if isinstance(event, PromptScores | Piece):
            infos += event.tokens
    engine.close()
    tokens = [request.prompt[0], *(info.token for info in infos)]
    logits = load(mixing, type_k="f32", type_v="f32", flash_attn=False).logits(tokens).astype(np.float64)
    expected = logits - np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1, keepdims=True)) - logits.max(
        1, keepdims=True
    )  # fmt: skip

    assert tuple(tokens[: len(request.prompt)]) == request.prompt
    assert len(infos) == len(request.prompt) - 1 + 6
    for at, info in enumerate(infos):
        assert info.logprob is not None
        assert math.isclose(info.logprob, expected[at, info.token], abs_tol=1e-3)
        assert info.top[0][0] == int(expected[at].argmax())
        assert len(info.top) == (2 if at < len(request.prompt) - 1 else 3)


def test_grammar(mixing: Path) -> None:
    """An answer follows its grammar, whatever the model likes; one that is none is the request's fault."""
    engine = started(mixing, n_ctx=256, n_seq_max=2, kv_unified=True)
    grammar = Grammar(text='root ::= "yes" | "no"')
    generation = ask(engine, TEXTS[0], sampling=Sampling(temperature=0.8, seed=1, grammar=grammar))
    text = ""
    while not isinstance(event := generation.next_event(TIMEOUT_S), Finished):
        assert not isinstance(event, Failed | None), event
        text += event.text if isinstance(event, Piece) else ""
    broken = ask(engine, TEXTS[0], sampling=Sampling(grammar=Grammar(text="root ::= (")))
    while not isinstance(ended := broken.next_event(TIMEOUT_S), Failed):
        assert isinstance(ended, Started)
    engine.close()

    assert text in ("yes", "no")
    assert event.reason == "stop"
    assert ended.fault == "request"


def test_embeddings(mixing: Path) -> None:
    """A text's vector does not depend on what else is asked, and a mean is that of its tokens' vectors."""
    engine = started(mixing, n_ctx=256, n_seq_max=2, kv_unified=True)
    prompts = tuple(engine.tokenize(text) for text in TEXTS[:2])
    (first,), (second,) = engine.embed(prompts, "mean")
    (each,) = engine.embed(prompts[:1], "none")
    (last,) = engine.embed(prompts[:1], "last")
    with pytest.raises(TextLengthError, match="expected at most 256 tokens"):
        engine.embed((prompts[0] * 300,), "mean")
    engine.close()

    assert first != second
    assert np.allclose(np.mean(each, axis=0), first, atol=1e-4)
    assert np.allclose(each[-1], last[0], atol=1e-4)
