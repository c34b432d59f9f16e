"""How is the next token chosen from a row of logits? One llama_sampler chain for each generation."""

import math
import random
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Final, Self

import numpy as np

from server.engine.handles import Context
from server.engine.protocol import Sampling
from server.engine.vocab import Vocab

GREEDY_BELOW: Final = 1e-5  # dividing by less can overflow float32


class Sampler:
    """A sampler chain, in llama-server's order: bias, penalties, top_k, top_p, min_p, temperature, dist or greedy.

    top_k comes before top_p because sorting a whole vocabulary of 152k costs 8 ms a token. The chain always ends in
    greedy or dist: llama_sampler_sample aborts on one that selects nothing.
    Source: llama.cpp 0c1e570 common/sampling.cpp, common_sampler_init.
    """

    def __init__(self, sampling: Sampling, context: Context, vocab: Vocab) -> None:
        api = self._api = context.api
        self._context = context
        self._n_vocab = vocab.n_vocab
        self.seed = random.getrandbits(32) if sampling.seed is None else sampling.seed & 0xFFFFFFFF
        self._chain = api.llama_sampler_chain_init(api.llama_sampler_chain_default_params())
        bias = _biases(sampling, vocab)
        if bias:
            native = (api.llama_logit_bias * len(bias))(*bias.items())
            self._add(api.llama_sampler_init_logit_bias(vocab.n_vocab, len(bias), native))
        last_n = context.n_ctx_seq if sampling.repeat_last_n < 0 else sampling.repeat_last_n
        self.n_remembered = last_n if _penalises(sampling) else 0
        if self.n_remembered:
            self._add(
                api.llama_sampler_init_penalties(
                    vocab.n_vocab,
                    last_n,
                    sampling.repeat_penalty,
                    sampling.frequency_penalty,
                    sampling.presence_penalty,
                )
            )
        if sampling.temperature < GREEDY_BELOW:
            self._add(api.llama_sampler_init_greedy())
            return
        if 0 < sampling.top_k < vocab.n_vocab:
            self._add(api.llama_sampler_init_top_k(sampling.top_k))
        if sampling.top_p < 1:
            self._add(api.llama_sampler_init_top_p(sampling.top_p, 1))
        if sampling.min_p > 0:
            self._add(api.llama_sampler_init_min_p(sampling.min_p, 1))
        self._add(api.llama_sampler_init_temp(sampling.temperature))
        self._add(api.llama_sampler_init_dist(self.seed))

    def _add(self, sampler: int) -> None:
        self._api.llama_sampler_chain_add(self._chain, sampler)

    def remember(self, tokens: Sequence[int]) -> None:
        """Let the penalties see the prompt, as llama-server does."""
        for token in tokens[len(tokens) - min(len(tokens), self.n_remembered) :]:
            self._api.llama_sampler_accept(self._chain, token)

    def sample(self, row: int) -> int | None:
        """Choose a token from the logits of the batch's place `row`, and remember it; None when they are no numbers.

        `row` must have been decoded with logits, or llama_sampler_sample aborts. A NaN (overflow in a broken model)
        would make its sorting undefined, so the row's maximum is looked at first: 25 µs for 152k logits.
        """
        logits: Any = self._api.llama_get_logits_ith(self._context.pointer, row)
        if not logits or not math.isfinite(_maximum(logits, self._n_vocab)):
            return None
        return int(self._api.llama_sampler_sample(self._chain, self._context.pointer, row))

    def close(self) -> None:
        """Free the chain; a second call does nothing."""
        if self._chain:
            self._api.llama_sampler_free(self._chain)
            self._chain = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _maximum(logits: Any, n_vocab: int) -> float:
    return float(np.ctypeslib.as_array(logits, shape=(n_vocab,)).max())  # NaN if any is NaN


def _biases(sampling: Sampling, vocab: Vocab) -> dict[int, float]:
    """Token to what is added to its logit. The model's suppressed tokens win over the request's wishes."""
    bias = {token: value for token, value in sampling.logit_bias if 0 <= token < vocab.n_vocab}
    if sampling.ignore_eos:
        bias.update(dict.fromkeys(vocab.end_tokens, -math.inf))
    bias.update(dict.fromkeys(vocab.suppressed_tokens, -math.inf))
    return bias


def _penalises(sampling: Sampling) -> bool:
    strengths = (sampling.repeat_penalty, sampling.frequency_penalty, sampling.presence_penalty)
    return strengths != (1, 0, 0) and sampling.repeat_last_n != 0
