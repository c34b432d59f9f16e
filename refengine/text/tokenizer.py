"""Text to tokens and back: what every tokenizer does, whatever it does between special tokens.

Source: llama.cpp 0c1e570 src/llama-vocab.cpp, llama_vocab::impl::tokenize, tokenizer_st_partition, token_to_piece.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator

from refengine.text.vocab import CONTROL, UNKNOWN, Vocab

SPACES = " \t\n\v\f\r"  # isspace in C


class Tokenizer(ABC):
    """The tokenizer of a model. Subclasses tokenise what lies between special tokens. Safe to use from any thread."""

    def __init__(self, vocab: Vocab) -> None:
        self.vocab = vocab
        self.n_vocab = len(vocab.tokens)
        self.bos, self.eos = vocab.bos, vocab.eos
        self.adds_bos = vocab.adds_bos
        self.end_tokens = tuple(sorted(vocab.ends))
        self.suppressed_tokens = vocab.suppressed

    @abstractmethod
    def encode(self, text: str, *, begins: bool) -> Iterable[int]:
        """Tokens of a text without special tokens; `begins`: it is the first, or follows a special one."""

    @abstractmethod
    def spell(self, token: int) -> bytes:
        """The bytes that a token stands for, a special one's own text included."""

    def tokenize(self, text: str, *, add_special: bool = True, parse_special: bool = True) -> tuple[int, ...]:
        """Tokens of a text; `add_special` puts BOS or EOS where the model wants them, `parse_special` reads
        `<|im_start|>` and the like as the tokens they name.

        Raises:
            UnicodeEncodeError: the text has lone surrogates, so it is no Unicode text.
            GGUFError: the vocabulary cannot spell the text.
        """
        text.encode()
        vocab, tokens, begins = self.vocab, list[int](), True
        if add_special and vocab.adds_bos and vocab.bos is not None:
            tokens.append(vocab.bos)
        for fragment in self._fragments(text, parse_special):
            if isinstance(fragment, int):
                tokens.append(fragment)
                begins = True
            else:
                tokens += self.encode(fragment, begins=begins)
                begins = False
        if add_special and vocab.adds_eos and vocab.eos is not None:
            tokens.append(vocab.eos)
        return tuple(tokens)

    def piece(self, token: int, *, special: bool = False) -> bytes:
        """The bytes a token stands for: any part of a character, and none for control tokens unless `special`."""
        hidden = not special and self.vocab.kinds[token] & (CONTROL | UNKNOWN)
        return b"" if hidden else self.spell(token)

    def text(self, tokens: Iterable[int], *, special: bool = True) -> str:
        """The text of a whole token sequence."""
        return b"".join(self.piece(token, special=special) for token in tokens).decode("utf-8", "replace")

    def ends_generation(self, token: int) -> bool:
        """Whether the token ends a generation (EOS, EOT, EOM, ...)."""
        return token in self.vocab.ends

    def _fragments(self, text: str, parse_special: bool) -> list[str | int]:
        """The text cut at special tokens, the longest ones first; those that users define are always looked for."""
        fragments: list[str | int] = [text] if text else []
        for token in self.vocab.parsed:
            if not parse_special and self.vocab.kinds[token] & (CONTROL | UNKNOWN):
                continue
            if self.vocab.tokens[token] in text:
                fragments = [part for fragment in fragments for part in self._cut(fragment, token)]
        return fragments

    def _cut(self, fragment: str | int, token: int) -> Iterator[str | int]:
        if isinstance(fragment, int):
            yield fragment
            return
        *parts, last = fragment.split(self.vocab.tokens[token])
        strips_left, strips_right = token in self.vocab.strips_left, token in self.vocab.strips_right
        for i, part in enumerate(parts):
            part = part.lstrip(SPACES) if i and strips_right else part
            part = part.rstrip(SPACES) if strips_left else part
            yield from (part, token) if part else (token,)
        last = last.lstrip(SPACES) if parts and strips_right else last
        if last:
            yield last
