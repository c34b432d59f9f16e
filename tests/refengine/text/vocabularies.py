"""Small files with a vocabulary and nothing else, of every kind that is tokenised here."""

import unicodedata
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from hypothesis import strategies as st

from ggufphys import open_gguf
from ggufphys.embedded import MODEL
from ggufphys.gguf.writer import WriteValue, encode_header
from tests.ggufphys.models import llama_metadata

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)  # llama_token_type

SPECIAL = {
    "<|im_start|>": CONTROL,
    "<|im_end|>": NORMAL,  # known by its text to be more
    "<|im_sep|>": CONTROL,
    "<tool>": USER_DEFINED,
    "<pad>": UNUSED,
    "<|fim_pad|>": NORMAL,
    "<mask>": CONTROL,
}
WORDS = ["the", "and", "def", "self", "return", "import", "été", "漢字", "12", "123", "''", "  ", "    ", "\n\n", ".\n"]


def write(path: Path, keys: Mapping[str, WriteValue]) -> Path:
    """A file of these keys, `tokenizer.ggml.` put before those without a dot."""
    full = {key if "." in key else f"tokenizer.ggml.{key}": value for key, value in keys.items()}
    path.write_bytes(encode_header(llama_metadata() | full, []))
    return path


@cache
def embedded() -> tuple[list[str], list[str]]:
    """Tokens and merges of the embedded model: a real vocabulary of 4,096."""
    with open_gguf(MODEL) as gguf:
        tokens, merges = (gguf.get_array(f"tokenizer.ggml.{name}") for name in ("tokens", "merges"))
        assert tokens is not None
        assert merges is not None
        return [str(token) for token in tokens], [str(merge) for merge in merges]


def bpe(pre: str) -> dict[str, WriteValue]:
    """Byte-level BPE with the embedded model's tokens."""
    tokens, merges = embedded()
    return {
        "model": "gpt2",
        "pre": pre,
        "tokens": [*tokens, *SPECIAL],
        "token_type": [CONTROL, *([NORMAL] * (len(tokens) - 1)), *SPECIAL.values()],
        "merges": merges,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }


def _characters() -> list[str]:
    return list(dict.fromkeys([*map(chr, range(33, 127)), "▁", "\n", *"".join(WORDS).replace(" ", "▁")]))


def _grown() -> list[str]:
    """The words, and every beginning of them of two letters and more, with and without a space before."""
    words = [prefix + word.replace(" ", "▁") for word in WORDS for prefix in ("", "▁")]
    return list(dict.fromkeys(word[:n] for word in words for n in range(2, len(word) + 1)))


def _bytes() -> list[str]:
    return [f"<0x{byte:02X}>" for byte in range(256)]


def characters_bpe(pre: str, model: str = "gpt2") -> dict[str, WriteValue]:
    """BPE over characters, unknown ones as bytes: Gemma 4's."""
    characters, grown = _characters(), [word for word in _grown() if "\n" not in word or not word.strip("\n")]
    tokens = ["<bos>", *_bytes(), *characters, *grown, *SPECIAL]
    known = {*characters, *grown}
    pairs = [(word[:-1], word[-1]) for word in grown if word[:-1] in known]
    return {
        "model": model,
        "pre": pre,
        "tokens": tokens,
        "token_type": [CONTROL, *([BYTE] * 256), *([NORMAL] * len([*characters, *grown])), *SPECIAL.values()],
        "merges": [f"{left} {right}" for left, right in pairs],
        "bos_token_id": 0,
        "eos_token_id": 0,
    }


def spm(**keys: WriteValue) -> dict[str, WriteValue]:
    """SentencePiece's BPE: words by score, some of them equal."""
    pieces = list(dict.fromkeys([*_grown(), *_characters()]))
    return {
        "model": "llama",
        "tokens": ["<unk>", "<s>", "</s>", *_bytes(), *pieces, *SPECIAL, "<|endoftext|>"],
        "token_type": [
            UNKNOWN, CONTROL, CONTROL, *([BYTE] * 256), *([NORMAL] * len(pieces)), *SPECIAL.values(), CONTROL,
        ],
        "scores": [0.0] * 259 + [-float(i % 50) for i in range(len(pieces))] + [0.0] * (len(SPECIAL) + 1),
        **keys,
    }  # fmt: skip


@cache
def _alphabet() -> tuple[str, ...]:
    """Some characters of every category that have had it since Unicode 3.2, so that all tables agree on them."""
    old, found = unicodedata.ucd_3_2_0, dict[str, list[str]]()
    for character in map(chr, range(0x20000)):
        category = unicodedata.category(character)
        if category not in ("Cs", "Cn") and old.category(character) == category:
            found.setdefault(category, []).append(character)
    return tuple(c for many in found.values() for c in many[:: max(1, len(many) // 25)])


PARTS = (
    " ", "  ", "\n", "\r\n", "\n\n\n", "\t", "'s", "'LL", "'re", "I'm", "don’t", "123", "1234567", "x1y22z", " the",
    "def self", "Été", "漢字かなカナ", "한국어", "ไทย", "हिन्दी", "e\u0301", "👩\u200d👧", "🇩🇪", "😀",
    "\0", "\x1f", "\x7f", "\x85", "\xa0", "\u2028", "\u3000", "▁", "_", "<0x0A>", "...", "!?", "->", "http://a.b/c",
    "ǅa", "aB", "²½Ⅷ", "。，",
    "<|im_start|>", "<|im_end|>", "<|im_sep|>", "<tool>", "<pad>", "<mask>", " <mask> ", "<s>", "</s>", "<unk>",
    "<|fim_pad|>", "<bos>", "<|im_start|", "IMGIMGABZ", "<sentinel:7>",
)  # fmt: skip


def texts() -> st.SearchStrategy[str]:
    """Texts of words, spaces, signs, special tokens and characters of every category."""
    piece = st.sampled_from(PARTS) | st.sampled_from(_alphabet()) | st.characters(max_codepoint=127)
    return st.lists(piece, max_size=25).map("".join)
