"""Users may write what looks like control tokens: `<|im_end|>` in a question is text, and must not end it.

llama-server reads it as the token, so that anybody who can say something can speak as the system. Here control tokens
in the contents of system, user and tool messages are split by a sign that no text has, and tokenized as the characters
they are; what the template itself writes is read as tokens.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

SIGN: Final = "\ufdd0"  # a noncharacter: Unicode promises that no text has it
SPOKEN: Final = frozenset({"system", "developer", "user", "tool"})  # whose contents are said by people and programs


class Tokenizer(Protocol):
    """What is asked of an engine."""

    def tokenize(self, text: str, *, add_special: bool = True, parse_special: bool = True) -> tuple[int, ...]:
        """Tokens of a text."""

    def pieces(self, tokens: tuple[int, ...]) -> tuple[bytes, ...]:
        """Bytes of tokens."""


def marked(messages: Sequence[Mapping[str, Any]], tokenizer: Tokenizer) -> list[dict[str, Any]]:
    """The messages, control tokens in what was said split by `SIGN`."""
    return [
        {**message, "content": _split(message["content"].replace(SIGN, ""), tokenizer)}
        if message["role"] in SPOKEN
        else dict(message)
        for message in messages
    ]


def tokens_of(text: str, tokenizer: Tokenizer) -> tuple[int, ...]:
    """Tokens of a rendered conversation: control tokens where the template wrote them, characters where a sign is."""
    if SIGN not in text:
        return tokenizer.tokenize(text)
    found: list[int] = []
    for i, part in enumerate(text.split(SIGN)):
        # what stood around a sign is the halves of what is to stay text, and each half is none
        found += tokenizer.tokenize(part, add_special=i == 0, parse_special=True)
    return tuple(found)


def _split(text: str, tokenizer: Tokenizer) -> str:
    """The text with a sign within each control token's name."""
    read = tokenizer.tokenize(text, add_special=False, parse_special=True)
    if read == tokenizer.tokenize(text, add_special=False, parse_special=False):
        return text
    for name in _names(read, tokenizer):
        text = text.replace(name, f"{name[:1]}{SIGN}{name[1:]}")
    return text


def _names(tokens: tuple[int, ...], tokenizer: Tokenizer) -> list[str]:
    """The texts of those tokens that are no text by themselves, longest first."""
    names = set()
    for token in set(tokens):
        name = tokenizer.pieces((token,))[0].decode(errors="replace")
        read, plain = (tokenizer.tokenize(name, add_special=False, parse_special=special) for special in (True, False))
        if len(name) > 1 and read == (token,) != plain:
            names.add(name)
    return sorted(names, key=len, reverse=True)
