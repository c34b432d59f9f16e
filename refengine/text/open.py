"""Which tokenizer does a file want?"""

from collections.abc import Callable, Iterable, Mapping
from typing import Final, Protocol

from ggufphys.gguf import GGUFFile
from refengine.text.bpe import BPETokenizer
from refengine.text.llama import LlamaTokenizer
from refengine.text.spm import SPMTokenizer


class AnyTokenizer(Protocol):
    """What every tokenizer offers, whoever wrote it; `refengine.text.tokenizer.Tokenizer` says what it means."""

    n_vocab: int
    adds_bos: bool
    bos: int | None
    eos: int | None
    end_tokens: tuple[int, ...]
    suppressed_tokens: tuple[int, ...]

    def tokenize(self, text: str, *, add_special: bool = True, parse_special: bool = True) -> tuple[int, ...]:
        """Tokens of a text."""
        ...

    def piece(self, token: int, *, special: bool = False) -> bytes:
        """The bytes of a token."""
        ...

    def text(self, tokens: Iterable[int], *, special: bool = True) -> str:
        """The text of tokens."""
        ...

    def ends_generation(self, token: int) -> bool:
        """Whether a token ends a generation."""
        ...


WRITTEN_HERE: Final[Mapping[str, Callable[[GGUFFile], AnyTokenizer]]] = {
    "llama": SPMTokenizer,
    "gpt2": BPETokenizer,
    "gemma4": BPETokenizer,
}


def open_tokenizer(gguf: GGUFFile) -> AnyTokenizer:
    """The tokenizer of a model file: ours, or llama.cpp's where none is written here.

    Raises:
        GGUFError: the vocabulary is missing or contradicts itself.
        MissingExtraError: only llama.cpp has this tokenizer, and llama-cpp-python is not installed.
        UnsupportedError: the file has no vocabulary, or one that is to be cut in an unknown way.
    """
    return WRITTEN_HERE.get(gguf.get_str("tokenizer.ggml.model", ""), LlamaTokenizer)(gguf)
