"""The engines, on a model whose answers are known: most tests run on both, some on llama.cpp's alone."""

import math
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ggufphys import UnsupportedError
from ggufphys.params import Params
from server.engine.errors import ContextLengthError, NotReadyError, QueueFullError
from server.engine.events import Failed, Finished, Piece, Started, TokenInfo
from server.engine.generation import Generation
from server.engine.llama.batch import Batch
from server.engine.llama.engine import LlamaEngine
from server.engine.llama.library import create_context, load_model
from server.engine.llama.rows import Rows
from server.engine.llama.sampler import Sampler
from server.engine.llama.tiny_model import write_tiny_model
from server.engine.llama.vocab import Vocab
from server.engine.loop.threaded import BaseEngine, check_scores
from server.engine.protocol import EngineStatus
from server.engine.readers.text import TextStream
from server.engine.request import GenerationRequest
from server.engine.sampling import Grammar, Sampling
from tests.server.chain_model import ENDING, LOOP, write_chain_model, write_mixing_model
from tests.server.conftest import MakeEngine
from tests.server.fake_engine import INFO

GREEDY = Sampling(temperature=0)
TIMEOUT_S = 20.0


def read(generation: Generation) -> tuple[list[str], Finished]:
    """The pieces and the last event of a generation that ends well."""
    pieces = []
    while True:
        event = generation.next_event(TIMEOUT_S)
        match event:
            case Piece():
                pieces.append(event.text)
            case Finished():
                return pieces, event
            case Failed() | None:
                pytest.fail(f"no end: {event}")
            case Started():
                pass


def request(engine: BaseEngine, text: str, **fields: object) -> GenerationRequest:
    return replace(GenerationRequest(prompt=engine.tokenize(text), sampling=GREEDY), **fields)  # type: ignore[arg-type]


def answer(engine: BaseEngine, text: str, **fields: object) -> tuple[str, Finished]:
    pieces, finished = read(engine.submit(request(engine, text, **fields)))
    return "".join(pieces), finished


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until another thread has made the condition true."""
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_answer(chain_engine: BaseEngine) -> None:
    """The model's answer comes whole, ends by its end token, and is counted with it."""
    text, finished = answer(chain_engine, "Hi!")

    assert text == ENDING[1:]
    assert finished.reason == "stop"
    assert finished.usage.n_prompt == len("Hi!") + 1  # BOS
    assert finished.usage.n_generated == len(ENDING[1:].encode()) + 1  # the end token
    assert min(finished.timings.queue_s, finished.timings.prompt_s, finished.timings.decode_s) > 0


def test_utf8_across_tokens(chain_engine: BaseEngine) -> None:
    """Each byte is a token here, and each piece is whole characters."""
    pieces, _ = read(chain_engine.submit(request(chain_engine, "!")))

    assert pieces == list(ENDING[1:])


@pytest.mark.parametrize(
    ("stop", "expected"),
    [
        (("€😀",), "Hé"),
        (("wo",), "Hé€😀 "),
        (("rx", "r"), "Hé€😀 wo"),
        (("H",), ""),
        (("nowhere", "wor!"), ENDING[1:]),
    ],
)
def test_stop_strings(chain_engine: BaseEngine, stop: tuple[str, ...], expected: str) -> None:
    """A stop string ends the answer before it, also across tokens; one that does not come loses nothing."""
    text, finished = answer(chain_engine, "!", stop=stop)

    assert text == expected
    assert finished.reason == "stop"


@pytest.mark.parametrize("n", [0, 1, 5])
def test_max_tokens(chain_engine: BaseEngine, n: int) -> None:
    """No more tokens than asked for, none included."""
    text, finished = answer(chain_engine, "0", max_tokens=n)

    assert text == LOOP[1 : 1 + n]
    assert finished.reason == "length"
    assert finished.usage.n_generated == n


def test_context_runs_full(chain_engine: BaseEngine) -> None:
    """A generation that fills the context ends by length, with every cell used."""
    _, finished = answer(chain_engine, "0")

    assert finished.reason == "length"
    assert finished.usage.n_prompt + finished.usage.n_generated == chain_engine.info.n_ctx_seq + 1


def test_prompt_in_chunks(chain_engine: BaseEngine) -> None:
    """A prompt longer than a batch (32 here) is evaluated in several and answered as one."""
    text, finished = answer(chain_engine, "x" * 300 + "!", cache_prompt=False)

    assert text == ENDING[1:]
    assert finished.usage.n_cached == 0


def test_longest_prompt(chain_engine: BaseEngine) -> None:
    """A prompt that leaves one token is answered with two; one that leaves none is refused, with the numbers."""
    n_ctx = chain_engine.info.n_ctx_seq
    text, finished = answer(chain_engine, "x" * (n_ctx - 3) + "0")

    assert (text, finished.reason) == ("12", "length")
    with pytest.raises(ContextLengthError) as refused:
        chain_engine.submit(request(chain_engine, "x" * (n_ctx - 1)))
    assert (refused.value.n_prompt, refused.value.n_ctx_seq) == (n_ctx, n_ctx)


@pytest.mark.parametrize(
    ("n_logprobs", "fields", "is_taken"),
    [
        (128, {}, True),
        (1000, {"max_tokens": 262}, True),
        (1000, {"max_tokens": 263}, False),
        (1000, {"max_tokens": 200, "n": 2}, False),
        (1000, {"max_tokens": 1, "n_prompt_logprobs": 5, "prompt": (1,) * 270}, False),
        (10**6, {"max_tokens": 1}, True),
        (10**6, {}, False),
    ],
)
def test_how_many_likely_tokens_are_shown(n_logprobs: int, fields: dict[str, Any], is_taken: bool) -> None:
    """Some beside each token, or a whole vocabulary beside a few; more is refused, with how many they would be."""
    info = replace(INFO, n_vocab=200_000, n_ctx_seq=4096)
    asked = GenerationRequest(**{"prompt": (1, 2, 3), "n_logprobs": n_logprobs, **fields})
    with nullcontext() if is_taken else pytest.raises(ValueError, match="expected at most 262,144"):
        check_scores(asked, info)


def test_prefix_is_reused(chain_engine: BaseEngine) -> None:
    """What a prompt shares with memory is not evaluated again, except its last token; the answer is the same."""
    answer(chain_engine, "Once upon a time!", cache_prompt=False)
    again, same = answer(chain_engine, "Once upon a time!")
    other, shorter = answer(chain_engine, "Once upon 7", max_tokens=2)
    _, fresh = answer(chain_engine, "Once upon 7", max_tokens=2, cache_prompt=False)

    assert (again, same.usage.n_cached) == (ENDING[1:], same.usage.n_prompt - 1)
    assert (other, shorter.usage.n_cached) == ("89", len(chain_engine.tokenize("Once upon ")))
    assert fresh.usage.n_cached == 0


def test_every_way_to_evaluate_agrees(tmp_path: Path, make_engine: MakeEngine) -> None:
    """Chunks, a reused prefix and token-by-token decoding give the answer that evaluating all of it anew gives."""
    path = write_mixing_model(tmp_path / "mixing.gguf")
    prompt, n = "A prompt of some length, for chunks and prefixes.", 24
    expected: tuple[int, ...] = ()
    with load_model(path, Params()) as model, create_context(model, Params(n_ctx=256, n_threads=1)) as context:
        vocab = Vocab(model)
        start = vocab.tokenize(prompt)
        rows = Rows(context, vocab.n_vocab)
        with Batch(context, 256) as batch, Sampler(replace(GREEDY, ignore_eos=True), context, vocab, rows) as sampler:
            for _ in range(n):
                context.clear()
                batch.clear()
                place = batch.add(start + expected, seq_id=0, start=0, logits_of_last=True)
                assert batch.decode(context) == 0
                rows.begin([place])
                token = sampler.sample(0)
                assert token is not None
                expected += (token,)
        text = TextStream()
        answer_text = "".join(text.feed(vocab.piece(token)) for token in expected)
        assert len(set(expected)) > n // 2, "a model that repeats itself would prove little"
    engine = make_engine(path, Params(n_ctx=256, n_ubatch=7, n_threads=1))
    engine.wait_until_settled(TIMEOUT_S)
    sampling = replace(GREEDY, ignore_eos=True)
    fields = {"max_tokens": n, "sampling": sampling}
    fresh, _ = answer(engine, prompt, **fields)
    answer(engine, prompt[:20] + "another way", **fields)
    reused, finished = answer(engine, prompt, **fields)
    engine.close()

    assert fresh.startswith(answer_text)
    assert reused == fresh
    assert finished.usage.n_cached == len(engine_tokens(prompt[:20]))


def engine_tokens(text: str) -> bytes:
    """BOS and the bytes of the text as the tokenizer has them: a space is a character of three."""
    return b"s" + text.replace(" ", "\u2581").encode()


def test_sampling_chain(chain_engine: BaseEngine) -> None:
    """Bias, penalties and every filter at once: a banned token does not come, a seed repeats itself."""
    banned = chain_engine.tokenize("3")[-1]
    sampling = Sampling(
        temperature=2.0, top_k=0, top_p=1.0, min_p=0.0, seed=7, logit_bias=((banned, -100000.0),),
        repeat_penalty=1.3, presence_penalty=1.0, frequency_penalty=1.0, repeat_last_n=-1, ignore_eos=True,
    )  # fmt: skip
    first, _ = answer(chain_engine, "0", sampling=sampling, max_tokens=40, cache_prompt=False)
    second, _ = answer(chain_engine, "0", sampling=sampling, max_tokens=40, cache_prompt=False)
    other, _ = answer(chain_engine, "0", sampling=replace(sampling, seed=8), max_tokens=40, cache_prompt=False)

    assert first == second != other
    assert first.startswith("12")
    assert "3" not in first


def test_ignore_eos(chain_engine: BaseEngine) -> None:
    """With ignore_eos the end token never comes."""
    _, finished = answer(chain_engine, "!", max_tokens=60, sampling=replace(GREEDY, ignore_eos=True))

    assert (finished.reason, finished.usage.n_generated) == ("length", 60)


def test_greedy_bias(chain_engine: BaseEngine) -> None:
    """A greedy answer follows the bias and no other's, and its log-probabilities are still the model's own."""
    forced = chain_engine.tokenize("x")[-1]
    sampling = replace(GREEDY, logit_bias=((forced, 100000.0),))
    events = []
    for asked in (GREEDY, sampling):
        generation = chain_engine.submit(request(chain_engine, "0", max_tokens=4, n_logprobs=1, sampling=asked))
        while not isinstance(event := generation.next_event(TIMEOUT_S), Finished):
            if isinstance(event, Piece):
                events.append(event)
    plain, biased = events[:4], events[4:]

    assert "".join(event.text for event in biased) == "xxxx" != "".join(event.text for event in plain)
    assert plain[0].tokens[0].top == biased[0].tokens[0].top


def test_odds(chain_path: Path) -> None:
    """With `post_sampling_probs` a token comes with what it was drawn from: what samplers left, 1 in all."""
    engine = LlamaEngine(chain_path, Params(n_ctx=256, n_threads=1))
    assert engine.wait_until_settled(30) is EngineStatus.READY, engine.error
    cold = Sampling(temperature=0, post_sampling_probs=True)
    warm = Sampling(temperature=90.0, top_k=5, min_p=0, top_p=1, seed=1, post_sampling_probs=True)
    allowed = replace(warm, top_k=0, grammar=Grammar(text='root ::= ("a" | "b") ("a" | "b")'))
    found: dict[str, list[TokenInfo]] = {}
    for name, sampling in {"cold": cold, "warm": warm, "allowed": allowed}.items():
        generation = engine.submit(request(engine, "0", max_tokens=2, n_logprobs=300, sampling=sampling))
        found[name] = []
        while not isinstance(event := generation.next_event(TIMEOUT_S), Finished):
            found[name] += event.tokens if isinstance(event, Piece) else ()
    engine.close()

    assert [(token.logprob, len(token.top)) for token in found["cold"]] == [(0.0, 1)] * 2
    assert [len(token.top) for token in found["warm"]] == [5, 5]
    assert {piece for token in found["allowed"] for _, piece, _ in token.top} == {b"a", b"b"}
    for token in (*found["warm"], *found["allowed"]):
        assert sum(math.exp(logprob) for _, _, logprob in token.top) == pytest.approx(1, abs=1e-5)
        assert token.logprob in {logprob for _, _, logprob in token.top}


def test_tokens(chain_engine: BaseEngine) -> None:
    """Text goes to tokens and back, special ones by their names; a lone surrogate is no text."""
    tokens = chain_engine.tokenize("a</s>é")

    assert len(tokens) == 5  # BOS, a, EOS, two bytes
    assert chain_engine.detokenize(tokens) == "<s>a</s>é"
    with pytest.raises(UnicodeEncodeError):
        chain_engine.tokenize("\ud800")


def test_refusals(chain_engine: BaseEngine) -> None:
    """No prompt, and tokens that llama_decode would refuse, are refused at once."""
    with pytest.raises(ValueError, match="empty"):
        chain_engine.submit(GenerationRequest(prompt=()))
    for token in (-1, chain_engine.info.n_vocab):
        with pytest.raises(ValueError, match="not in the vocabulary"):
            chain_engine.submit(GenerationRequest(prompt=(token,)))


def test_cancel_frees_the_engine(endless_engine: BaseEngine) -> None:
    """A cancelled generation gives way to the next one, whether it runs or waits; a full queue refuses."""
    engine = endless_engine
    endless = engine.submit(request(engine, "0"))
    assert isinstance(endless.next_event(TIMEOUT_S), Started)
    waiting = engine.submit(request(engine, "0"))
    with pytest.raises(QueueFullError):
        engine.submit(request(engine, "0"))
    waiting.cancel()
    last = engine.submit(request(engine, "!"))
    endless.cancel()

    assert "".join(read(last)[0]) == ENDING[1:]
    assert read(endless)[1].reason == "cancelled"


def test_close_ends_everything(endless_engine: BaseEngine) -> None:
    """Closing ends what runs, fails what waits, and refuses what comes later; closing twice does nothing."""
    engine = endless_engine
    running = engine.submit(request(engine, "0"))
    assert isinstance(running.next_event(TIMEOUT_S), Started)
    waiting = engine.submit(request(engine, "0"))
    engine.close()
    engine.close()

    assert read(running)[1].reason == "cancelled"
    assert waiting.next_event(TIMEOUT_S) == Failed(message="the server is shutting down", fault="closed")
    assert engine.status is EngineStatus.CLOSED
    for call in (lambda: engine.tokenize("a"), lambda: engine.info, lambda: engine.submit(waiting.request)):
        with pytest.raises(NotReadyError):
            call()


def test_nan_logits(tmp_path: Path, make_engine: MakeEngine) -> None:
    """A model whose logits are no numbers fails the request with a reason, and the engine lives on."""
    engine = make_engine(write_chain_model(tmp_path / "nan.gguf", nan=True), Params(n_ctx=256, n_threads=1))
    assert engine.wait_until_settled(TIMEOUT_S) is EngineStatus.READY
    for _ in range(2):
        generation = engine.submit(request(engine, "a"))
        assert isinstance(generation.next_event(TIMEOUT_S), Started)
        failed = generation.next_event(TIMEOUT_S)
        assert isinstance(failed, Failed)
        assert "NaN" in failed.message
    engine.close()


def test_failed_decode(chain_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When llama_decode fails the request fails with its code, memory is cleared, and the next request is answered."""
    engine = LlamaEngine(chain_path, Params(n_ctx=256, n_threads=1))
    engine.wait_until_settled(TIMEOUT_S)
    with monkeypatch.context() as patch:
        patch.setattr("server.engine.llama.batch.Batch.decode", lambda self, context: -3)
        generation = engine.submit(request(engine, "a"))
        generation.next_event(TIMEOUT_S)
        failed = generation.next_event(TIMEOUT_S)
    text, finished = answer(engine, "a!")

    assert isinstance(failed, Failed)
    assert "code -3" in failed.message
    assert (text, finished.usage.n_cached) == (ENDING[1:], 0)
    engine.close()


def test_model_without_tokenizer(tmp_path: Path, make_engine: MakeEngine) -> None:
    """A model that cannot be served is a failed load with the reason, not a crash."""
    path = tmp_path / "tiny.gguf"
    write_tiny_model(path)
    engine = make_engine(path, Params(n_ctx=256, n_threads=1))

    assert engine.wait_until_settled(TIMEOUT_S) is EngineStatus.FAILED
    assert isinstance(engine.error, UnsupportedError)
    assert "no tokenizer" in str(engine.error)
    with pytest.raises(NotReadyError):
        engine.tokenize("a")
    engine.close()


def test_crashing_amx_is_switched_off(chain_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a build whose AMX kernels crash the engine warns and loads without extra buffers."""
    seen: list[Params] = []
    warnings: list[str] = []

    def load(path: str, params: Params, **more: object) -> object:
        seen.append(params)
        raise UnsupportedError("enough")

    monkeypatch.setattr("server.engine.llama.engine.system_info", lambda: "AMX_INT8 = 1")
    monkeypatch.setattr("server.engine.llama.amx.run_probe", lambda: -11)
    monkeypatch.setattr("server.engine.llama.engine.load_model", load)
    engine = LlamaEngine(chain_path, Params(), warn=warnings.append)
    engine.wait_until_settled(TIMEOUT_S)
    engine.close()

    assert [params.use_extra_bufts for params in seen] == [False]
    assert len(warnings) == 1


def test_close_while_loading(chain_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Closing an engine that still loads ends the load."""
    entered, proceed = threading.Event(), threading.Event()

    def slow_info() -> str:
        entered.set()
        proceed.wait(TIMEOUT_S)
        return ""

    monkeypatch.setattr("server.engine.llama.engine.system_info", slow_info)
    engine = LlamaEngine(chain_path, Params())
    entered.wait(TIMEOUT_S)
    before = engine.status
    closer = threading.Thread(target=engine.close)
    closer.start()
    wait_for(engine._closing.is_set)
    proceed.set()
    closer.join(TIMEOUT_S)

    assert (before, engine.status) == (EngineStatus.LOADING, EngineStatus.CLOSED)
