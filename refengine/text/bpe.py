"""Byte-level BPE (`tokenizer.ggml.model` "gpt2"; "gemma4" without the bytes): pieces of text merged by a list of pairs.

Source: llama.cpp 0c1e570 src/llama-vocab.cpp, llm_tokenizer_bpe_session, llama_decode_text.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property, lru_cache
from typing import Final

from ggufphys.errors import GGUFError, UnsupportedError
from ggufphys.gguf import GGUFFile
from ggufphys.synth.tokenizer import byte_tokens
from refengine.text.merge import merge
from refengine.text.pretokenizers import PRE_TOKENIZERS, PreTokenizer
from refengine.text.split import split
from refengine.text.spm import REMEMBERED, SPACE, spelled
from refengine.text.tokenizer import Tokenizer
from refengine.text.vocab import BYTE, NORMAL, Defaults, ranks, read_vocab

GPT2 = Defaults(bos=11, eos=11)
BYTES: Final = {character: byte for byte, character in enumerate(byte_tokens())}


class BPETokenizer(Tokenizer):
    """The tokenizer of GPT-2, Llama 3, Qwen, DeepSeek, Gemma 4 and many more.

    Raises:
        GGUFError: the vocabulary is missing or contradicts itself.
        UnsupportedError: `tokenizer.ggml.pre` is unknown.
    """

    def __init__(self, gguf: GGUFFile) -> None:
        is_gemma4 = gguf.get_str("tokenizer.ggml.model", "") == "gemma4"
        name = "gemma4" if is_gemma4 else gguf.get_str("tokenizer.ggml.pre", "")
        pre = PRE_TOKENIZERS.get(name)
        if pre is None:
            raise UnsupportedError(
                f"{gguf.path}: tokenizer.ggml.pre is {name!r}, which llama.cpp 0c1e570 does not know either; "
                "converting the model with that one may help"
            )
        if gguf.get_array("tokenizer.ggml.merges") is None and name != "kimi-k2":
            raise GGUFError(f"{gguf.path}: no tokenizer.ggml.merges, expected them beside a vocabulary for BPE")
        defaults = Defaults() if is_gemma4 else replace(GPT2, adds_bos=pre.adds_bos)
        if not pre.has_default_bos:
            defaults = replace(defaults, bos=None)
        vocab = read_vocab(gguf, defaults)
        self._is_gemma4 = "gemma4" in pre.names
        super().__init__(replace(vocab, adds_bos=True) if self._is_gemma4 else vocab)
        self._gguf, self._pre = gguf, pre
        self._tokens_of = lru_cache(REMEMBERED)(self._merged)

    @cached_property
    def _ranks(self) -> dict[str, int]:
        return dict(ranks(self._gguf))

    def encode(self, text: str, *, begins: bool) -> Iterator[int]:
        """Tokens of a text without special tokens."""
        del begins
        pre: PreTokenizer = self._pre
        for piece in split(text if pre.byte_level else text.replace(" ", SPACE), pre.expressions):
            yield from self._tokens_of(
                "".join(map(byte_tokens().__getitem__, piece.encode())) if pre.byte_level else piece
            )

    def spell(self, token: int) -> bytes:
        """The bytes that a token stands for."""
        text, kind = self.vocab.tokens[token], self.vocab.kinds[token]
        if not self._pre.byte_level or not kind & NORMAL or kind & ~(NORMAL | BYTE):
            return spelled(text, kind)
        return b"".join(
            bytes([BYTES[c]]) if c in BYTES else f"[UNK_BYTE_0x{c.encode().hex()}{text}]".encode() for c in text
        )

    def _merged(self, piece: str) -> tuple[int, ...]:
        ids = self.vocab.ids
        is_whole = self._pre.ignore_merges or (self._is_gemma4 and not piece.strip("\n"))
        if is_whole and piece in ids:
            return (ids[piece],)
        return tuple(token for symbol in merge(list(piece), self._rank) for token in self._token(symbol))

    def _rank(self, left: str, right: str) -> int | None:
        return self._ranks.get(f"{left} {right}")

    def _token(self, symbol: str) -> Iterator[int]:
        """A symbol's token; what has none is spelled in bytes, and bytes without a token are lost."""
        ids = self.vocab.ids
        if symbol in ids:
            yield ids[symbol]
        elif self._pre.byte_level:
            yield from (ids[c] for c in symbol if c.isascii() and c in ids)
        else:
            yield from (ids[text] for text in (f"<0x{byte:02X}>" for byte in symbol.encode()) if text in ids)
