"""Do the tokens themselves stop llama.cpp? Each text once, byte tokens that can be written, what a tokenizer looks for.

Source: llama.cpp 0c1e570 src/llama-vocab.cpp, llama_vocab::impl::load, token_to_byte, llm_tokenizer_plamo2::build,
llm_tokenizer_rwkv_session::tokenize.
"""

import re
import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from ggufphys.gguf import GGUFArray, GGUFFile
from ggufphys.gguf.values import ValueType
from ggufphys.loads.distinct import are_distinct
from ggufphys.loads.refusal import Refusal

SOURCE: Final = "llama.cpp 0c1e570 src/llama-vocab.cpp"
TOKENS: Final = "tokenizer.ggml.tokens"
TYPES: Final = "tokenizer.ggml.token_type"

BYTE: Final = 6  # LLAMA_TOKEN_TYPE_BYTE
WRITES_BYTES: Final = (
    "llama",
    "t5",
    "gpt2",
    "hybriddna",
    "whitespace",
    "gemma4",
)  # by the text's 4th and 5th character
NO_BYTES: Final = ("bert",)
PHI3: Final = (b"</s>", b"<unk>", b"<s>", b"<|endoftext|>")


def check_tokens(gguf: GGUFFile, model: str, array: GGUFArray) -> Iterator[Refusal]:
    """Every reason that lies in the tokens of a tokenizer that llama.cpp knows."""
    if not len(array) and model == "test":
        yield _refusal("a division by the number of tokens", "no tokens", "at least one", "tokenize", ends=True)
    byte_ids, is_phi3 = _byte_ids(gguf, len(array)), _is_phi3(gguf)
    if are_distinct(array) and not byte_ids and not is_phi3 and model not in ("plamo2", "rwkv"):
        return  # nothing more is asked of them
    tokens = array.all_bytes()
    yield from _duplicates(tokens)
    yield from _bytes(tokens, byte_ids, model)
    if model == "rwkv":
        yield from _newline(tokens)
    if is_phi3:
        what = "a token that a model named phi-3 needs is missing"
        for text in sorted(set(PHI3).difference(tokens)):
            yield _refusal(what, "none", _text(text), "llama_vocab::impl::load")


def _duplicates(tokens: Sequence[bytes]) -> Iterator[Refusal]:
    n = len(set(tokens))
    if n == len(tokens) or (tokens.count(b"") == len(tokens) - n + 1 and b"[EMPTY_" not in b"".join(tokens)):
        return  # llama.cpp gives empty tokens different names
    named = Counter(text or f"[EMPTY_{i}]".encode() for i, text in enumerate(tokens))
    twice = [text for text, count in named.items() if count > 1]
    if twice:
        found = ", ".join(map(_text, twice[:3]))
        yield _refusal("a token occurs more than once", found, "each text once", "llama_vocab::impl::load", ends=True)


def _byte_ids(gguf: GGUFFile, n_tokens: int) -> list[int]:
    """Which tokens stand for a byte."""
    array = gguf.metadata.get(TYPES)
    if not isinstance(array, GGUFArray) or array.element_type is not ValueType.INT32 or len(array) < n_tokens:
        return []
    raw = bytes(array.buffer[array.offset : array.offset + 4 * n_tokens])
    prefix = "<" if array.byte_order == "little" else ">"
    if struct.pack(f"{prefix}i", BYTE) not in raw:
        return []
    return [i for i, kind in enumerate(struct.unpack(f"{prefix}{n_tokens}i", raw)) if kind == BYTE]


def _bytes(tokens: Sequence[bytes], ids: Sequence[int], model: str) -> Iterator[Refusal]:
    """What tokenizers make of tokens that stand for a byte."""
    if ids and model in NO_BYTES:
        yield _refusal("a byte as a token", _text(tokens[ids[0]]), "none", "token_to_byte", ends=True)
    short = [tokens[i] for i in ids if tokens[i] and len(tokens[i]) < 3]
    if short and model in WRITES_BYTES:
        yield _refusal("a byte's token is too short", _text(short[0]), "<0xNN>", "token_to_byte")
    if model == "plamo2":
        texts = (tokens[i] for i in ids if i > 0)
        there = {int(text[3:5], 16) for text in texts if re.fullmatch(rb"<0x[0-9a-fA-F]{2}>", text)}
        lacking = [f"<0x{byte:02X}>" for byte in range(256) if byte not in there]
        if lacking:
            yield _refusal("a byte has no token", "none", lacking[0], "llm_tokenizer_plamo2::build")


def _newline(tokens: Sequence[bytes]) -> Iterator[Refusal]:
    r"""Where tokens begin with a line's end and none is one, llama.cpp looks for it without end."""
    ends = (b"\\n", b"\n", b"\\x0a", b"\\x0A")
    if any(text.startswith(ends) for text in tokens) and not any(text in ends for text in tokens):
        found, symbol = "no token for a line's end alone", "llm_tokenizer_rwkv_session::tokenize"
        yield _refusal("a search without end", found, "one", symbol, ends=True)


def _is_phi3(gguf: GGUFFile) -> bool:
    name, pre = gguf.metadata.get("general.name", ""), gguf.metadata.get("tokenizer.ggml.pre", "")
    if not isinstance(name, str) or not isinstance(pre, str):
        return False
    masked = any(part in pre for part in ("jina-v2-de", "jina-v2-es", "jina-v2-code"))
    masked |= any(part in gguf.architecture for part in ("nomic-bert-moe", "jina-bert-v3"))
    return not masked and any(part in name.lower() for part in ("phi-3", "phi3"))


def _refusal(what: str, found: str, expected: str, symbol: str, *, ends: bool = False) -> Refusal:
    source = f"{SOURCE}, {symbol}"
    return Refusal(what=what, where=TOKENS, found=found, expected=expected, source=source, ends_process=ends)


def _text(token: bytes) -> str:
    return repr(token.decode(errors="replace"))


__all__ = ["check_tokens"]
