"""Users may write what looks like control tokens: `<|im_end|>` in a question is text, and must not end it.

llama-server reads it as the token, so that anybody who can say something can speak as the system. Here control tokens
in the contents of system, user and tool messages are split by a sign that no text has, and tokenized as the characters
they are; what the template itself writes is read as tokens.
"""

import re
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
        {**message, "content": _marked(message["content"], tokenizer)} if message["role"] in SPOKEN else dict(message)
        for message in messages
    ]


def _marked(content: str | list[dict[str, Any]], tokenizer: Tokenizer) -> str | list[dict[str, Any]]:
    if isinstance(content, str):
        return as_text(content, tokenizer)
    return [{**part, "text": _marked(part["text"], tokenizer)} for part in content]


def tokens_of(text: str, tokenizer: Tokenizer, *, add_special: bool = True) -> tuple[int, ...]:
    """Tokens of a rendered conversation: control tokens where the template wrote them, characters where a sign is.

    What stands between two control tokens is tokenized as a whole, as llama.cpp does with text: in two parts it would
    be other tokens, and the second would begin with the space that SentencePiece puts in front of words.

    Source: llama.cpp 0c1e570 src/llama-vocab.cpp, llama_vocab::impl::tokenize, tokenizer_st_partition.
    """
    if SIGN not in text:
        return tokenizer.tokenize(text, add_special=add_special)
    names = "|".join(map(re.escape, _names(text, tokenizer)))
    read: list[tuple[str, bool]] = []  # stretches of text, and whether names of control tokens are tokens there
    for i, stretch in enumerate(re.split(f"({names})", text) if names else [text]):
        if i % 2 == 0 and SIGN in stretch:
            read.append((stretch.replace(SIGN, ""), False))
        elif read and read[-1][1]:
            read[-1] = read[-1][0] + stretch, True
        else:
            read.append((stretch, True))
    found: list[int] = []
    for i, (stretch, parse_special) in enumerate(read):
        found += tokenizer.tokenize(stretch, add_special=add_special and i == 0, parse_special=parse_special)
    return tuple(found)


def as_text(text: str, tokenizer: Tokenizer) -> str:
    """The text with a sign within each control token's name, for `tokens_of`."""
    text = text.replace(SIGN, "")
    for name in _names(text, tokenizer):
        text = text.replace(name, f"{name[:1]}{SIGN}{name[1:]}")
    return text


def _names(text: str, tokenizer: Tokenizer) -> list[str]:
    """The names of control tokens that a text spells, longest first."""
    read, plain = (tokenizer.tokenize(text, add_special=False, parse_special=special) for special in (True, False))
    if read == plain:
        return []
    names = set()
    for token in set(read).difference(plain):
        name = tokenizer.pieces((token,))[0].decode(errors="replace")
        alone = [tokenizer.tokenize(name, add_special=False, parse_special=special) for special in (True, False)]
        if len(name) > 1 and alone[0] == (token,) != alone[1]:
            names.add(name)
    return sorted(names, key=len, reverse=True)
