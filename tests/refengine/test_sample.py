"""Our choice of tokens against llama.cpp's chain of samplers."""

import ctypes
import math
from collections import Counter

import llama_cpp as api
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ggufphys import GGUFPhysError
from refengine.blocks import F32
from refengine.sample import Sampler, Sampling, probabilities

N_VOCAB = 50
SAMPLINGS = st.builds(
    Sampling,
    temperature=st.sampled_from([0.3, 0.8, 1.0, 2.0]),
    top_k=st.sampled_from([0, 1, 5, 40, 100]),
    top_p=st.sampled_from([0.1, 0.5, 0.95, 1.0]),
    min_p=st.sampled_from([0.0, 0.05, 0.5, 1.0]),
    repeat_penalty=st.sampled_from([1.0, 1.3]),
    repeat_last_n=st.sampled_from([0, 3, 64]),
    frequency_penalty=st.sampled_from([0.0, 0.5, -0.5]),
    presence_penalty=st.sampled_from([0.0, 0.7]),
    logit_bias=st.sampled_from([(), ((3, 4.0), (7, -100.0))]),
)


def in_llama_cpp(logits: F32, s: Sampling, seen: list[int]) -> dict[int, float]:
    """What llama.cpp's chain leaves, and how likely each is."""
    chain = api.llama_sampler_chain_init(api.llama_sampler_chain_default_params())
    bias = (api.llama_logit_bias * len(s.logit_bias))(*s.logit_bias)
    last_n = 10_000 if s.repeat_last_n < 0 else s.repeat_last_n
    for step in (
        api.llama_sampler_init_logit_bias(N_VOCAB, len(s.logit_bias), bias),
        api.llama_sampler_init_penalties(
            N_VOCAB, last_n, s.repeat_penalty, s.frequency_penalty, s.presence_penalty
        ),
        api.llama_sampler_init_top_k(s.top_k),
        api.llama_sampler_init_top_p(s.top_p, 1),
        api.llama_sampler_init_min_p(s.min_p, 1),
        api.llama_sampler_init_temp(s.temperature),
        api.llama_sampler_init_dist(0),
    ):  # fmt: skip
        api.llama_sampler_chain_add(chain, step)
    for token in seen:
        api.llama_sampler_accept(chain, token)
    data = (api.llama_token_data * N_VOCAB)(*((i, float(logit), 0.0) for i, logit in enumerate(logits)))
    array = api.llama_token_data_array(data, N_VOCAB, -1, False)
    api.llama_sampler_apply(chain, ctypes.byref(array))
    left = {int(array.data[i].id): float(array.data[i].p) for i in range(array.size)}
    api.llama_sampler_free(chain)
    return left


@settings(max_examples=150, deadline=None, database=None)
@given(SAMPLINGS, st.integers(0, 10**6), st.lists(st.integers(0, 9), max_size=8))
def test_as_llama_cpp(sampling: Sampling, seed: int, seen: list[int]) -> None:
    """The same tokens are left in, each as likely, whatever is asked for."""
    logits = np.random.default_rng(seed).normal(0, 3, N_VOCAB).astype(np.float32)
    sampler = Sampler(sampling)
    sampler.remember(seen)

    tokens, weights = probabilities(sampler._adjusted(logits), sampling)

    theirs = in_llama_cpp(logits, sampling, seen)
    assert set(tokens.tolist()) == set(theirs)
    assert [theirs[token] for token in tokens.tolist()] == pytest.approx(weights.tolist(), abs=2e-5)


def test_draws_as_likely_as_said() -> None:
    """Over many draws each token comes as often as its probability says."""
    logits = np.log(np.array([0.5, 0.3, 0.2], np.float32))
    sampler = Sampler(Sampling(temperature=1.0, seed=1))

    drawn = Counter(sampler.choose(logits) for _ in range(6000))

    assert [drawn[token] / 6000 for token in range(3)] == pytest.approx([0.5, 0.3, 0.2], abs=0.03)


def test_same_seed_same_tokens() -> None:
    """A seed gives the same tokens again, another one others."""
    logits = np.zeros(100, np.float32)

    def draw(seed: int | None) -> list[int]:
        sampler = Sampler(Sampling(temperature=1.0, seed=seed))
        return [sampler.choose(logits) for _ in range(20)]

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)
    assert draw(-1) == draw(2**64 - 1) != draw(1)
    assert draw(None) != draw(None)


def test_greedy_heeds_penalties_and_bans() -> None:
    """The likeliest token is the likeliest of those that may be drawn, what was there before counting less."""
    logits = np.array([3.0, 2.9, 1.0], np.float32)
    sampler = Sampler(Sampling(presence_penalty=1.5))

    assert [sampler.choose(logits) for _ in range(3)] == [0, 1, 0]
    assert Sampler(banned=(0,)).choose(logits) == 1
    assert logits.tolist() == pytest.approx([3.0, 2.9, 1.0])


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_no_numbers(value: float) -> None:
    """Logits that are no numbers are an error, not a token."""
    with pytest.raises(GGUFPhysError, match="not numbers"):
        Sampler().choose(np.array([0.0, value], np.float32))


@pytest.mark.parametrize("name", ["temperature", "top_k", "repeat_penalty", "min_p"])
def test_out_of_range(name: str) -> None:
    """A number that means nothing is named."""
    with pytest.raises(ValueError, match=f"{name} is -1"):
        Sampling(**{name: -1})  # type: ignore[arg-type]
