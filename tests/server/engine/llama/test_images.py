"""Images in prompts: what llama.cpp's own helper makes of them, and what the memory of them is good for."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from ggufphys.params import Params
from server.engine.errors import EngineError
from server.engine.events import Finished, Piece
from server.engine.generation import Generation
from server.engine.llama.engine import LlamaBackend, LlamaEngine
from server.engine.loop.threaded import BaseEngine
from server.engine.media import Encoder, Read, joined
from server.engine.protocol import EngineStatus
from server.engine.request import GenerationRequest
from server.engine.sampling import Sampling
from server.engine.worker.supervised import SupervisedEngine
from tests.server.seeing_model import ENCODERS, HEARING, noise, picture, write_seeing_model
from tests.server.seeing_peer import greedy

TIMEOUT_S = 30
N = 8
Prompt = Sequence[str | bytes]
ONE: Prompt = ("hello ", picture(1), " what?")
TWO: Prompt = ("hello ", picture(1), " and ", picture(2, 90, 33), " what?")


def opened(pair: tuple[Path, Path], make: Any = LlamaEngine, **params: Any) -> BaseEngine:
    options = Params(**{"n_ctx": 512, "n_seq_max": 2, "n_threads": 1, **params})
    engine: BaseEngine = make(pair[0], options, encoder=Encoder(path=str(pair[1])))
    assert engine.wait_until_settled(TIMEOUT_S) is EngineStatus.READY, engine.error
    return engine


@pytest.fixture(scope="module", params=list(ENCODERS))
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_seeing_model(tmp_path_factory.mktemp("seeing"), request.param)


@pytest.fixture(scope="module")
def engine(pair: tuple[Path, Path]) -> Iterator[BaseEngine]:
    engine = opened(pair)
    yield engine
    engine.close()


def submit(engine: BaseEngine, prompt: Prompt, **fields: Any) -> Generation:
    pieces = [
        engine.read(each) if isinstance(each, bytes) else Read(tokens=engine.tokenize(each, add_special=i == 0))
        for i, each in enumerate(prompt)
    ]
    whole = joined(pieces)
    options = {"max_tokens": N, "sampling": Sampling(temperature=0.0), "return_tokens": True, **fields}
    return engine.submit(GenerationRequest(prompt=whole.tokens, spans=whole.spans, **options))


def finished(generation: Generation) -> tuple[tuple[int, ...], Finished]:
    tokens: list[int] = []
    while not isinstance(event := generation.next_event(TIMEOUT_S), Finished):
        assert event is not None
        if isinstance(event, Piece):
            tokens += [each.token for each in event.tokens]
    return tuple(tokens), event


@pytest.mark.parametrize("prompt", [ONE, TWO], ids=["one", "two"])
def test_answers_are_those_of_llama_cpp(engine: BaseEngine, pair: tuple[Path, Path], prompt: Prompt) -> None:
    tokens, _ = finished(submit(engine, prompt, cache_prompt=False))
    assert tokens == greedy(*pair, prompt, N)


def test_an_image_is_looked_at(engine: BaseEngine) -> None:
    """Else nothing here would show anything."""
    answers = {finished(submit(engine, ("hello ", picture(seed), " what?")))[0] for seed in range(1, 6)}
    assert len(answers) > 1


def test_an_image_is_reused_by_its_bytes(engine: BaseEngine, pair: tuple[Path, Path]) -> None:
    first, _ = finished(submit(engine, TWO, cache_prompt=False))
    again, event = finished(submit(engine, TWO))
    assert again == first
    assert event.usage.n_cached == event.usage.n_prompt - 1
    other: Prompt = (*TWO[:3], picture(3, 90, 33), TWO[4])
    tokens, event = finished(submit(engine, other))
    assert tokens == greedy(*pair, other, N)
    n_same = sum(len(engine.read(each).tokens) if isinstance(each, bytes) else len(each) for each in TWO[:3])
    assert event.usage.n_cached >= n_same  # and not a part of the image that differs, though it is as long
    longer: Prompt = (*TWO[:4], " what else is there?")  # the memory is cut behind two images
    assert finished(submit(engine, longer))[0] == greedy(*pair, longer, N)


def test_answers_beside_each_other(engine: BaseEngine, pair: tuple[Path, Path]) -> None:
    prompts: Sequence[Prompt] = (ONE, TWO, ("no image at all",), ONE)
    under_way = [submit(engine, prompt, cache_prompt=False) for prompt in prompts]
    for prompt, generation in zip(prompts, under_way, strict=True):
        assert finished(generation)[0] == greedy(*pair, prompt, N)
    several = submit(engine, ONE, n=2, cache_prompt=False)
    finished(several)
    finished(several)


def test_images_where_room_is_short(pair: tuple[Path, Path]) -> None:
    """Answers that give way are evaluated again, images and all."""
    engine = opened(pair, n_ctx=160, n_ubatch=64, n_batch=64, kv_unified=True)
    try:
        under_way = [submit(engine, TWO, max_tokens=30) for _ in range(3)]
        answers = {finished(each)[0] for each in under_way}
        assert answers == {greedy(*pair, TWO, 30)}
    finally:
        engine.close()


def test_a_cancelled_image_leaves_nothing(engine: BaseEngine, pair: tuple[Path, Path]) -> None:
    submit(engine, TWO, max_tokens=400, cache_prompt=False).cancel()
    assert finished(submit(engine, ONE, cache_prompt=False))[0] == greedy(*pair, ONE, N)


def test_in_a_process_of_its_own(pair: tuple[Path, Path]) -> None:
    engine = opened(pair, SupervisedEngine)
    try:
        assert engine.info.sees
        assert not engine.info.hears
        assert finished(submit(engine, TWO))[0] == greedy(*pair, TWO, N)
        with pytest.raises(ValueError, match="could not be read"):
            engine.read(b"BM" + bytes(60))
    finally:
        engine.close()


def test_what_encodes_is_at_work(engine: BaseEngine) -> None:
    """Its nodes are not counted, so the time that it takes of the processor tells that it gets on."""
    assert isinstance(engine, LlamaEngine)
    backend = engine._backend
    assert isinstance(backend, LlamaBackend)
    assert backend._encoding is not None
    seen = []
    for is_encoding in (True, False):
        backend._encoding.is_encoding = is_encoding
        seen.append(backend.n_nodes is None)
    assert seen == [True, not backend._abort.counts]


def test_sounds(tmp_path: Path) -> None:
    pair = write_seeing_model(tmp_path, "llama", HEARING)
    engine = opened(pair, n_seq_max=1)
    try:
        assert engine.info.hears
        assert not engine.info.sees
        answers = []
        for seed in (1, 2):
            prompt: Prompt = ("hello ", noise(seed), " what?")
            answers.append(finished(submit(engine, prompt))[0])
            assert answers[-1] == greedy(*pair, prompt, N)
        assert answers[0] != answers[1]
    finally:
        engine.close()


def test_what_is_refused(engine: BaseEngine) -> None:
    read = engine.read(picture(1))
    end = read.spans[-1].end
    with pytest.raises(ValueError, match="ends with an image"):
        engine.submit(GenerationRequest(prompt=read.tokens[:end], spans=read.spans))
    with pytest.raises(ValueError, match="is not in the vocabulary"):
        engine.submit(GenerationRequest(prompt=read.tokens))
    with pytest.raises(ValueError, match="of text alone"):
        submit(engine, ONE, n_prompt_logprobs=1)


def test_an_image_that_is_read_at_once_fits_a_ubatch(tmp_path: Path) -> None:
    """llama_decode would end the process."""
    engine = opened(write_seeing_model(tmp_path, "gemma3"), n_ubatch=2)
    try:
        with pytest.raises(ValueError, match="--ubatch-size of 4 or more"):
            engine.read(picture(1))
    finally:
        engine.close()


def test_an_encoder_of_another_model(tmp_path: Path) -> None:
    model, _ = write_seeing_model(tmp_path, "llama")
    engine = LlamaEngine(model, Params(n_ctx=64, n_threads=1), encoder=Encoder(path=str(model)))
    assert engine.wait_until_settled(TIMEOUT_S) is EngineStatus.FAILED
    assert isinstance(engine.error, EngineError)
    assert "could not load the encoder" in str(engine.error)
    engine.close()
