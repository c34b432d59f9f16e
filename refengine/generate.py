"""How does a model go on from a text? Token by token, shown as soon as characters are whole."""

import codecs
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from ggufphys.context import ContextParams
from refengine.blocks import F32
from refengine.sample import Sampler, Sampling
from refengine.text.open import AnyTokenizer


class Evaluates(Protocol):
    """What goes on from tokens: a model with a context."""

    @property
    def context(self) -> ContextParams:
        """How the model is run."""

    @property
    def n_past(self) -> int:
        """How many tokens it has evaluated."""

    def evaluate(self, tokens: Sequence[int], *, all_logits: bool) -> F32:
        """Logits of the last token, or of all."""


def tokens_behind(model: Evaluates, tokens: Sequence[int], n_tokens: int | None, sampler: Sampler) -> Iterator[int]:
    """Append tokens to what the model has evaluated, then choose one after the other, until the context is full.

    Raises as `evaluate` does.
    """
    sampler.remember(tokens)
    row = model.evaluate(tokens, all_logits=False)[0]
    n_left = model.context.n_ctx_seq - model.n_past + 1
    n_tokens = n_left if n_tokens is None else min(n_tokens, n_left)
    for i in range(n_tokens):
        token = sampler.choose(row)
        yield token
        if i + 1 < n_tokens:
            row = model.evaluate([token], all_logits=False)[0]


def sampler_for(tokenizer: AnyTokenizer, sampling: Sampling | None) -> Sampler:
    """A sampler that never draws what the file says is not to be generated, nor an end if that is to be ignored."""
    banned = set(tokenizer.suppressed_tokens)
    if sampling is not None and sampling.ignore_eos:
        banned.update(tokenizer.end_tokens)
    return Sampler(sampling, banned)


def text_of(tokens: Iterable[int], tokenizer: AnyTokenizer) -> Iterator[str]:
    """The text of tokens up to the first that ends a generation: whole characters, never an empty piece.

    Bytes that are no UTF-8 become U+FFFD; those of a character that is never finished are dropped.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for token in tokens:
        if tokenizer.ends_generation(token):
            return
        text = decoder.decode(tokenizer.piece(token))
        if text:
            yield text
