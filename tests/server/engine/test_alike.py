"""Batch invariance over llama.cpp: each bit of an answer's logits is that of a lone request."""

from collections.abc import Callable
from pathlib import Path

import pytest

from ggufphys.embedded import MODEL
from ggufphys.params import Params
from server.engine.llama import LlamaEngine
from server.engine.protocol import EngineStatus, Failed, Finished, Generation, GenerationRequest, Piece, PromptScores
from server.engine.sampling import Sampling
from tests.server.chain_model import write_mixing_model

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


def started(path: Path, block: int, **fields: object) -> LlamaEngine:
    params = {"n_ctx": 8 * 512, "n_seq_max": 8, "n_threads": 2, **fields}
    engine = LlamaEngine(path, Params(**params), block=block)  # type: ignore[arg-type]
    assert engine.wait_until_settled(TIMEOUT_S) is EngineStatus.READY, engine.error
    return engine


def ask(engine: LlamaEngine, text: str, n_tokens: int = 12, **fields: object) -> Generation:
    values = {"max_tokens": n_tokens, "sampling": GREEDY, "n_logprobs": 3, **fields}
    return engine.submit(GenerationRequest(prompt=engine.tokenize(text), **values))  # type: ignore[arg-type]


def mixing(folder: Path) -> Path:
    return write_mixing_model(folder / "mixing.gguf")


def embedded(folder: Path) -> Path:
    del folder
    return MODEL


@pytest.mark.parametrize("flash_attn", ["on", "off"])
@pytest.mark.parametrize(("model", "block"), [(mixing, 2), (embedded, 2)])
def test_a_crowd_changes_no_bit(
    tmp_path: Path, model: Callable[[Path], Path], block: int, flash_attn: str
) -> None:  # fmt: skip
    """Answers of requests that come together, behind others with prompts alike, are those of lone requests to the
    bit: in their tokens, and in the log-probabilities of tokens and of scored prompts.
    """
    path = model(tmp_path)
    alone = []
    engine = started(path, block, flash_attn=flash_attn)
    for i, text in enumerate(TEXTS):
        alone.append(told(ask(engine, text, cache_prompt=False, n_prompt_logprobs=None if i % 3 else 2)))
    together = [ask(engine, text, n_prompt_logprobs=None if i % 3 else 2) for i, text in enumerate(TEXTS)]
    crowd = [told(each) for each in together]
    again = [told(ask(engine, text, n_prompt_logprobs=None if i % 3 else 2)) for i, text in enumerate(TEXTS)]
    engine.close()

    assert crowd == alone
    assert again == alone
    assert engine.counters.n_generated_tokens > 2 * engine.counters.n_steps / 3
