"""Batch invariance over llama.cpp: each bit of an answer's logits is that of a lone request."""

import platform
from collections.abc import Sequence
from pathlib import Path

import llama_cpp
import pytest

from ggufphys import UnsupportedError, open_gguf
from ggufphys.embedded import MODEL
from ggufphys.params import Params
from server.engine.events import Failed, Finished, Piece, PromptScores
from server.engine.generation import Generation
from server.engine.llama.engine import LlamaEngine
from server.engine.model_info import Adapter
from server.engine.protocol import EngineStatus
from server.engine.request import ActiveAdapters, GenerationRequest
from server.engine.sampling import Sampling
from server.left_open.invariance import MACHINES, block_of
from tests.server.chain_model import write_mixing_adapter, write_mixing_model

pytestmark = pytest.mark.skipif(platform.machine() not in MACHINES, reason="it is refused on other processors")

TIMEOUT_S = 60.0
GREEDY = Sampling(temperature=0, ignore_eos=True)
TEXTS = [f"{i} of them " * (1 + 3 * i % 17) + "went away" for i in range(12)]

Told = list[tuple[int, bytes, float]]
"""Tokens with the likeliest beside them, and log-probabilities, of which equal ones are equal to the bit."""


def told(generation: Generation) -> Told:
    found: Told = []
    while not isinstance(event := generation.next_event(TIMEOUT_S), Finished):
        assert not isinstance(event, Failed | None), event
        if isinstance(event, Piece | PromptScores):
            found += [top for info in event.tokens for top in info.top]
    return found


def started(path: Path, block: int, adapters: Sequence[Adapter] = (), **fields: object) -> LlamaEngine:
    params = {"n_ctx": 16 * 512, "n_seq_max": 16, "n_threads": 2, **fields}
    engine = LlamaEngine(path, Params(**params), block=block, adapters=adapters)  # type: ignore[arg-type]
    assert engine.wait_until_settled(TIMEOUT_S) is EngineStatus.READY, engine.error
    return engine


def ask(engine: LlamaEngine, text: str, n_tokens: int = 12, **fields: object) -> Generation:
    values = {"max_tokens": n_tokens, "sampling": GREEDY, "n_logprobs": 3, **fields}
    return engine.submit(GenerationRequest(prompt=engine.tokenize(text), **values))  # type: ignore[arg-type]


def written(folder: Path, weights: str) -> Path:
    """A model with random weights in F32, or the embedded one with weights of a type."""
    path = folder / "model.gguf"
    if weights == "random":
        return write_mixing_model(path)
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.allow_requantize = getattr(llama_cpp, f"LLAMA_FTYPE_{weights}"), True
    assert llama_cpp.llama_model_quantize(str(MODEL).encode(), str(path).encode(), params) == 0
    return path


@pytest.mark.parametrize(
    ("weights", "block", "flash_attn"),
    [("random", 2, "on"), ("random", 2, "off"), ("ALL_F32", 2, "on"), ("MOSTLY_F16", 2, "on"), ("MOSTLY_F16", 2, "off"),
     ("MOSTLY_BF16", 2, "on"), ("MOSTLY_Q8_0", 2, "on"), ("MOSTLY_Q4_1", 8, "on"), ("MOSTLY_Q4_K_M", 8, "on"),
     ("MOSTLY_Q4_K_M", 8, "off"), ("MOSTLY_Q6_K", 8, "on")],
)  # fmt: skip
def test_a_crowd_changes_no_bit(tmp_path: Path, weights: str, block: int, flash_attn: str) -> None:
    """Answers of requests that come together, behind others with prompts alike, are those of lone requests to the
    bit: in their tokens, and in the log-probabilities of tokens and of scored prompts.
    """
    path = written(tmp_path, weights)
    with open_gguf(path) as gguf:
        assert block_of(gguf, Params(), {}) == block
    scored = [None if i % 3 else 2 for i in range(len(TEXTS))]
    engine = started(path, block, flash_attn=flash_attn)
    alone = [
        told(ask(engine, text, cache_prompt=False, n_prompt_logprobs=n))
        for text, n in zip(TEXTS, scored, strict=True)
    ]  # fmt: skip
    n_steps = engine.counters.n_steps
    together = [ask(engine, text, n_prompt_logprobs=n) for text, n in zip(TEXTS, scored, strict=True)]
    crowd = [told(each) for each in together]
    n_steps = engine.counters.n_steps - n_steps
    again = [told(ask(engine, text, n_prompt_logprobs=n)) for text, n in zip(TEXTS, scored, strict=True)]
    engine.close()

    assert crowd == alone
    assert again == alone
    assert n_steps < engine.counters.n_steps / 3 * 0.8, "they did run side by side"


def test_with_adapters(tmp_path: Path) -> None:
    """Dummies are computed with the adapters of those beside them; sets of adapters take turns, and no bit changes."""
    files = [write_mixing_adapter(tmp_path / f"{seed}.gguf", seed) for seed in (1, 2)]
    engine = started(written(tmp_path, "random"), 2, adapters=[Adapter(path=str(path)) for path in files])
    sets: list[ActiveAdapters] = [(), ((0, 1.0),), ((1, 0.5),), ((0, 1.0), (1, 0.5))]
    asked = [(text, sets[i % 4]) for i, text in enumerate(TEXTS)]
    alone = [told(ask(engine, text, cache_prompt=False, adapters=each)) for text, each in asked]
    crowd = [told(each) for each in [ask(engine, text, adapters=each) for text, each in asked]]
    engine.close()

    assert crowd == alone


def test_what_is_not_alike_is_found_at_the_start(tmp_path: Path) -> None:
    """Rows that are computed otherwise in one block than in several are seen before anybody is served."""
    path = written(tmp_path, "MOSTLY_Q4_K_M")
    engine = LlamaEngine(path, Params(n_ctx=16 * 512, n_seq_max=16, n_threads=2), block=2)
    assert engine.wait_until_settled(TIMEOUT_S) is EngineStatus.FAILED
    assert isinstance(engine.error, UnsupportedError)
    assert "logits differ between" in str(engine.error)
    engine.close()
