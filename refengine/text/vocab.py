"""What is a token? Its text, its kind, and which ones end a generation, as llama.cpp reads them from the file.

Source: llama.cpp 0c1e570 src/llama-vocab.cpp, llama_vocab::impl::load.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice, repeat
from typing import Final

from ggufphys.errors import GGUFError
from ggufphys.gguf import GGUFFile
from refengine.text.special import ENDS, FIM, FIM_ENDS, NORMAL_S, SHOWN, STRIPS_LEFT

# What a token is, as llama_token_attr says it: the file has one of these for each, its text may add another. Plain
# ints: an IntFlag would take longer than all the rest of reading a vocabulary.
UNDEFINED: Final = 0
NORMAL: Final = 1
UNKNOWN: Final = 2
CONTROL: Final = 4
USER_DEFINED: Final = 8
UNUSED: Final = 16
BYTE: Final = 32

_KINDS: Final = (UNDEFINED, NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE)  # by llama_token_type


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """What holds for a kind of tokenizer unless the file says otherwise."""

    bos: int | None = None
    eos: int | None = None
    unk: int | None = None
    adds_bos: bool = False
    adds_space: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocab:
    """A vocabulary. `tokens` are the texts as they stand in the file, `ids` finds them.

    `parsed` are the tokens that are looked for in a text before it is tokenised, longest first; around those in
    `strips_left` and `strips_right` spaces are dropped.
    """

    tokens: tuple[str, ...]
    ids: Mapping[str, int]
    kinds: tuple[int, ...]
    bos: int | None
    eos: int | None
    unk: int | None
    adds_bos: bool
    adds_eos: bool
    adds_space: bool
    ends: frozenset[int]
    suppressed: tuple[int, ...]
    parsed: tuple[int, ...]
    strips_left: frozenset[int]
    strips_right: frozenset[int]


def read_vocab(gguf: GGUFFile, defaults: Defaults) -> Vocab:
    """The vocabulary of a file.

    Raises:
        GGUFError: it has none, or one that contradicts itself.
    """
    tokens = _tokens(gguf)
    ids = dict(zip(tokens, range(len(tokens)), strict=True))
    if len(ids) != len(tokens):
        twice = next(text for i, text in enumerate(tokens) if ids[text] != i)
        raise GGUFError(f"{gguf.path}: tokenizer.ggml.tokens has {twice!r} twice, expected each token once")
    kinds = _kinds(gguf, len(tokens))
    eos = _special(gguf, "eos", defaults.eos, len(tokens))
    ends = _ends(gguf, ids, tokens, kinds, eos)
    parsed = [token for token, kind in enumerate(kinds) if kind & (CONTROL | USER_DEFINED | UNKNOWN)]
    parsed.sort(key=lambda token: -len(tokens[token].encode()))
    return Vocab(
        tokens=tokens,
        ids=ids,
        kinds=tuple(kinds),
        bos=_special(gguf, "bos", defaults.bos, len(tokens)),
        eos=eos,
        unk=_special(gguf, "unknown", defaults.unk, len(tokens)),
        adds_bos=gguf.get_bool("tokenizer.ggml.add_bos_token", defaults.adds_bos),
        adds_eos=gguf.get_bool("tokenizer.ggml.add_eos_token", False),
        adds_space=gguf.get_bool("tokenizer.ggml.add_space_prefix", defaults.adds_space),
        ends=ends,
        suppressed=_suppressed(gguf, len(tokens)),
        parsed=tuple(parsed),
        strips_left=_strips_left(gguf, ids),
        strips_right=_strips_right(gguf, ids, parsed),
    )


def scores(gguf: GGUFFile, n_tokens: int) -> tuple[float, ...]:
    """How likely SPM finds each token; zeros where the file does not say.

    Raises:
        GGUFError: fewer scores than tokens.
    """
    array = gguf.get_array("tokenizer.ggml.scores")
    if array is None:
        return tuple(repeat(0.0, n_tokens))
    if len(array) < n_tokens:
        raise GGUFError(f"{gguf.path}: tokenizer.ggml.scores has {len(array)} elements, expected {n_tokens}")
    return tuple(float(score) for score in array)


def ranks(gguf: GGUFFile) -> Mapping[str, int]:
    """How early BPE merges a pair, by "left right"; of a pair that is there twice, the earlier."""
    merges = tuple(map(str, gguf.get_array("tokenizer.ggml.merges") or ()))
    return dict(zip(reversed(merges), reversed(range(len(merges))), strict=True))


def _tokens(gguf: GGUFFile) -> tuple[str, ...]:
    array = gguf.get_array("tokenizer.ggml.tokens")
    if array is None:
        raise GGUFError(f"{gguf.path}: no tokenizer.ggml.tokens, so text cannot be tokenised")
    return tuple(str(text) or f"[EMPTY_{i}]" for i, text in enumerate(array))


def _kinds(gguf: GGUFFile, n_tokens: int) -> list[int]:
    array = gguf.get_array("tokenizer.ggml.token_type")
    if array is None:
        return [NORMAL] * n_tokens
    if len(array) < n_tokens:
        raise GGUFError(f"{gguf.path}: tokenizer.ggml.token_type has {len(array)} elements, expected {n_tokens}")
    numbers = islice(map(int, array), n_tokens)
    return [_KINDS[number] if 0 < number < len(_KINDS) else UNDEFINED for number in numbers]


def _special(gguf: GGUFFile, role: str, default: int | None, n_tokens: int) -> int | None:
    """The token of a role; one outside of the vocabulary is none."""
    given = gguf.get_int(f"tokenizer.ggml.{role}_token_id", -1)
    if 0 <= given < n_tokens:
        return given
    return default if default is not None and default < n_tokens else None


def _ends(
    gguf: GGUFFile, ids: Mapping[str, int], tokens: tuple[str, ...], kinds: list[int], eos: int | None
) -> frozenset[int]:
    """The tokens that end a generation. Tokens that are known by their text get the kind that they should have."""
    ends = {_special(gguf, role, None, len(tokens)) for role in ("eot", "eom")} | {eos}
    for roles, texts in FIM:
        said = [_special(gguf, role, None, len(tokens)) for role in roles]
        token = next((token for token in said if token is not None), None)
        if token is None:
            token = next((ids[text] for text in texts if text in ids), None)
            _mark(kinds, (token,))
        if FIM_ENDS.intersection(roles):
            ends.add(token)
    by_text = {ids[text] for text in ENDS if text in ids}
    _mark(kinds, by_text)
    ends |= by_text
    for text in SHOWN:
        if text in ids:
            kinds[ids[text]] = USER_DEFINED
    found = {tokens[token] for token in ends if token is not None}
    # harmony and its like: <|end|> ends a message, not the answer
    if "<|end|>" in found and found & {"<|call|>", "<|calls|>"} and found & {"<|return|>", "<|flush|>"}:
        ends.discard(ids["<|end|>"])
        kinds[ids["<|end|>"]] = USER_DEFINED
    if "</s>" in found and found & NORMAL_S:
        ends.discard(ids["</s>"])
        kinds[ids["</s>"]] = NORMAL
    return frozenset(token for token in ends if token is not None)


def _mark(kinds: list[int], tokens: Iterable[int | None]) -> None:
    for token in tokens:
        if token is not None:
            kinds[token] |= CONTROL


def _suppressed(gguf: GGUFFile, n_tokens: int) -> tuple[int, ...]:
    array = gguf.get_array("tokenizer.ggml.suppress_tokens")
    return tuple(int(token) for token in array or () if 0 <= int(token) < n_tokens)


def _strips_left(gguf: GGUFFile, ids: Mapping[str, int]) -> frozenset[int]:
    pre, name = gguf.get_str("tokenizer.ggml.pre", ""), gguf.get_str("general.name", "").lower()
    said = {"pre": pre, "arch": gguf.architecture, "name": name}
    found = (text for text, where, part in STRIPS_LEFT if part in said[where])
    return frozenset(ids[text] for text in found if text in ids)


def _strips_right(gguf: GGUFFile, ids: Mapping[str, int], parsed: Iterable[int]) -> frozenset[int]:
    """Phi-3's special tokens swallow the spaces behind them, but for three."""
    name = gguf.get_str("general.name", "").lower()
    if "phi-3" not in name and "phi3" not in name:
        return frozenset()
    tokens = {*parsed, *(ids[text] for text in ("</s>",) if text in ids)}
    return frozenset(tokens - {ids[text] for text in ("<unk>", "<s>", "<|endoftext|>") if text in ids})
