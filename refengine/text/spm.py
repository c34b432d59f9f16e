"""SentencePiece's BPE (`tokenizer.ggml.model` "llama"): characters merged by the scores of what they become.

Source: llama.cpp 0c1e570 src/llama-vocab.cpp, llm_tokenizer_spm_session, byte_to_token.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

from ggufphys.errors import GGUFError
from ggufphys.gguf import GGUFFile
from refengine.text.merge import merge
from refengine.text.tokenizer import Tokenizer
from refengine.text.vocab import BYTE, CONTROL, NORMAL, UNKNOWN, USER_DEFINED, Defaults, read_vocab, scores

SPACE: Final = "▁"
REMEMBERED: Final = 1 << 15  # pieces whose tokens are kept: most of a text is words that were there before
DEFAULTS = Defaults(bos=1, eos=2, unk=0, adds_bos=True, adds_space=True)


class SPMTokenizer(Tokenizer):
    """The tokenizer of Llama 2, Gemma to 3, Mistral to 7B and many more.

    Raises:
        GGUFError: the vocabulary is missing or contradicts itself.
    """

    def __init__(self, gguf: GGUFFile) -> None:
        super().__init__(read_vocab(gguf, DEFAULTS))
        self._path = gguf.path
        self._scores = scores(gguf, self.n_vocab)
        # Where no token goes on behind a word's end, nothing is merged across it: words can be looked at one by one.
        self._words = re.compile(f"{SPACE}*[^{SPACE}]+|{SPACE}+")
        self._by_word = not any(map(re.compile(f"[^{SPACE}]{SPACE}").search, self.vocab.tokens))
        self._tokens_of = lru_cache(REMEMBERED)(self._merged)

    def encode(self, text: str, *, begins: bool) -> Iterator[int]:
        """Tokens of a text without special tokens, a space put before it where the model wants one."""
        prefix = " " if begins and self.vocab.adds_space else ""
        text = (prefix + text).replace(" ", SPACE)
        for piece in self._words.findall(text) if self._by_word else (text,):
            yield from self._tokens_of(piece) if self._by_word else self._merged(piece)

    def spell(self, token: int) -> bytes:
        """The bytes that a token stands for."""
        return spelled(self.vocab.tokens[token], self.vocab.kinds[token])

    def _merged(self, piece: str) -> tuple[int, ...]:
        tokens = list[int]()
        for symbol in merge(list(piece), self._rank):
            token = self.vocab.ids.get(symbol)
            tokens += map(self._byte, symbol.encode()) if token is None else (token,)
        return tuple(tokens)

    def _rank(self, left: str, right: str) -> float | None:
        token = self.vocab.ids.get(left + right)
        return None if token is None else -self._scores[token]

    def _byte(self, byte: int) -> int:
        ids = self.vocab.ids
        token = ids.get(f"<0x{byte:02X}>", ids.get(chr(byte), self.vocab.unk) if byte < 128 else self.vocab.unk)
        if token is None:
            raise GGUFError(
                f"{self._path}: the vocabulary has no token for the byte 0x{byte:02X}, nor for unknown ones"
            )
        return token


def spelled(text: str, kind: int) -> bytes:
    """The bytes of a token whose spaces are written as "▁", or that is a byte like <0x0A>."""
    if kind & (CONTROL | USER_DEFINED | UNKNOWN):
        return text.encode()
    if kind & NORMAL:
        return text.replace(SPACE, " ").encode()
    return bytes([int(text[3:5], 16)]) if kind & BYTE else b""
