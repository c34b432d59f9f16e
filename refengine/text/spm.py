"""SentencePiece's BPE (`tokenizer.ggml.model` "llama"): characters merged by the scores of what they become.

Source: llama.cpp 0c1e570 src/llama-vocab.cpp, llm_tokenizer_spm_session, byte_to_token.
"""

from collections.abc import Iterator

from ggufphys.errors import GGUFError
from ggufphys.gguf import GGUFFile
from refengine.text.merge import merge
from refengine.text.tokenizer import Tokenizer
from refengine.text.vocab import BYTE, CONTROL, NORMAL, UNKNOWN, USER_DEFINED, Defaults, read_vocab, scores

SPACE = "▁"
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

    def encode(self, text: str, *, begins: bool) -> Iterator[int]:
        """Tokens of a text without special tokens, a space put before it where the model wants one."""
        prefix = " " if begins and self.vocab.adds_space else ""
        for symbol in merge(list((prefix + text).replace(" ", SPACE)), self._rank):
            token = self.vocab.ids.get(symbol)
            if token is not None:
                yield token
            else:
                yield from map(self._byte, symbol.encode())

    def spell(self, token: int) -> bytes:
        """The bytes that a token stands for."""
        return spelled(self.vocab.tokens[token], self.vocab.kinds[token])

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
