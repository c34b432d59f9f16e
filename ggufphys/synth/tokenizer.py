"""What does a byte-level BPE vocabulary of any size look like, if nobody trains one?

256 byte tokens first, so that every text can be tokenised. Then made-up words: every string of two letters, then of
three, and so on, each with and without a space before it, commonest letters first; each is the word before it and one
more letter, which is the merge that makes it. English text comes out at about three characters a token. Two control
tokens close the vocabulary.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from itertools import islice, product
from typing import Final

from ggufphys.gguf.writer import WriteValue

LETTERS: Final = "etaoinshrdlcumwfgypbvkjxqz"
SPACE: Final = "Ġ"  # how byte-level BPE spells a space
CONTROL: Final = ("<|begin_of_text|>", "<|end_of_text|>")
MIN_VOCAB: Final = 256 + len(CONTROL)
# llama_token_type
_NORMAL, _CONTROL = 1, 3

CHAT_TEMPLATE: Final = (
    "{{ bos_token }}{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


def tokenizer_metadata(n_vocab: int) -> Mapping[str, WriteValue]:
    """The `tokenizer.*` keys of a vocabulary of exactly `n_vocab` tokens, all different.

    Raises:
        ValueError: `n_vocab` leaves no room for bytes and control tokens, or exceeds the words we can make up.
    """
    if n_vocab < MIN_VOCAB:
        raise ValueError(f"a vocabulary of {n_vocab} has no room for 256 bytes and {len(CONTROL)} control tokens")
    words = list(islice(_words(), n_vocab - MIN_VOCAB))
    tokens = [*byte_tokens(), *(first + second for first, second in words), *CONTROL]
    if len(tokens) != n_vocab:
        raise ValueError(f"a vocabulary of {n_vocab} is more than the {len(tokens)} tokens that can be made up")
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [_NORMAL] * (n_vocab - len(CONTROL)) + [_CONTROL] * len(CONTROL),
        "tokenizer.ggml.merges": [f"{first} {second}" for first, second in words],
        "tokenizer.ggml.bos_token_id": n_vocab - 2,
        "tokenizer.ggml.eos_token_id": n_vocab - 1,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.chat_template": CHAT_TEMPLATE,
    }


@cache
def byte_tokens() -> tuple[str, ...]:
    """The 256 one-character tokens by byte: printable characters stand for themselves, the others for U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return tuple(chr(byte if byte in printable else next(others)) for byte in range(256))


def _words() -> Iterator[tuple[str, str]]:
    """Merges, each of two tokens that stand before it: a word without its last letter, and that letter."""
    for length in range(1, 5):
        for letters in product(LETTERS, repeat=length):
            stem, last = "".join(letters[:-1]), letters[-1]
            if stem:
                yield stem, last
            yield SPACE + stem, last
