"""What is read? A text in a model's own tokens, cut into windows."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from bench.corpus import held_out
from bench.quality.windows import Tokens, Windows, fitting_n_ctx, windows_of
from ggufphys import open_gguf
from ggufphys.units import read_text
from refengine.text.llama import LlamaTokenizer

N_CTX: Final = 512
"""Tokens of a window unless asked for otherwise: llama-perplexity's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What all models read: a text, in windows of how many tokens (0: 512, less for short texts), how many (0: all)."""

    text: str
    n_ctx: int = 0
    n_chunks: int = 0
    n_threads: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A text as a model reads it: its windows, how many tokens there are, the bytes of UTF-8 that are judged."""

    windows: Windows
    n_vocab: int
    judged_bytes: int

    def same_as(self, other: "Reading") -> bool:
        """Whether both are of the same tokens, so that probabilities can be compared one by one."""
        return self.n_vocab == other.n_vocab and np.array_equal(self.windows.tokens, other.windows.tokens)


def read(path: Path, setting: Setting) -> Reading:
    """The text in the tokens that llama.cpp makes of it under the model's own settings.

    Nothing stands in front of it that `tokenizer.ggml.add_bos_token` (or its tokenizer's default) does not ask for, and
    what looks like a control token is text, as for llama-perplexity.

    Raises:
        GGUFError: not a readable GGUF, or its vocabulary is not.
        UnsupportedError: it has none.
        ValueError: the text is too short.
    """
    with open_gguf(path) as gguf:
        tokenizer = LlamaTokenizer(gguf)
    tokens = np.array(tokenizer.tokenize(setting.text, add_special=True, parse_special=False), np.int32)
    windows = windows_of(
        tokens,
        n_ctx=setting.n_ctx or fitting_n_ctx(len(tokens), N_CTX),
        n_chunks=setting.n_chunks,
        bos=tokenizer.bos if tokenizer.adds_bos else None,
    )
    return Reading(
        windows=windows, n_vocab=tokenizer.n_vocab, judged_bytes=max(1, _bytes_of(windows.targets, tokenizer))
    )


def _bytes_of(targets: Tokens, tokenizer: LlamaTokenizer) -> int:
    tokens, counts = np.unique(targets, return_counts=True)
    return int(np.dot(counts, [len(tokenizer.piece(token)) for token in tokens.tolist()]))


def text_of(paths: Sequence[Path]) -> str:
    """The files' texts one behind the other; without files, the standard library's modules that training never saw.

    Raises:
        ValueError: a file is not UTF-8, or endless, or all are empty.
        OSError: one cannot be read.
    """
    if not paths:
        return "".join(document.text for document in held_out())
    texts = [read_text(path) for path in paths]
    if not any(texts):
        raise ValueError(f"{', '.join(map(str, paths))}: empty, expected texts to judge")
    return "".join(texts)
