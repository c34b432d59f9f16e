"""Do a model and its draft read text alike? A guess is worth something where its tokens mean the same to both.

Source: llama.cpp 0c1e570 common/speculative.cpp, common_speculative_are_compatible (the rule); src/llama-vocab.cpp,
llama_vocab::impl::load (what is so where a file does not say).
"""

from collections.abc import Mapping, Sequence
from itertools import count
from typing import Final, Literal

from ggufphys.arch.table import LATER, RULES
from ggufphys.frozen import dataclass
from ggufphys.gguf import GGUFFile

SIZES_DIFFER_MAX: Final = 128  # SPEC_VOCAB_MAX_SIZE_DIFFERENCE
FIRST_COMPARED: Final = 5  # SPEC_VOCAB_CHECK_START_TOKEN_ID

KINDS: Final[Mapping[str, int]] = {  # llama_vocab_type, by tokenizer.ggml.model
    "llama": 1, "gpt2": 2, "hybriddna": 2, "whitespace": 2, "gemma4": 2, "bert": 3, "t5": 4, "rwkv": 5, "plamo2": 6,
    "test": 7, "no_vocab": 0, "none": 0,
}  # fmt: skip
NO_TOKENIZER: Final = 0
# By the kind: numbers of BOS and EOS, and whether they are added; None: it depends on the pre-tokenizer.
DEFAULTS: Final[Mapping[int, tuple[int, int, bool | None, bool]]] = {
    1: (1, 2, True, False), 2: (11, 11, None, False), 3: (101, -1, True, False), 4: (-1, 1, False, True),
    5: (-1, -1, False, False), 6: (1, 2, None, False), 7: (-1, -1, None, False), 0: (-1, -1, False, False),
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Tongue:
    """What of a vocabulary is compared. `adds_bos`, `adds_eos` None: unknown."""

    kind: int
    bos: int
    eos: int
    adds_bos: bool | None
    adds_eos: bool | None
    tokens: Sequence[bytes]


def tongue_of(gguf: GGUFFile) -> Tongue | None:
    """The tongue of a file's vocabulary; None where it has none that is known."""
    kind = KINDS.get(gguf.get_str("tokenizer.ggml.model", ""))
    tokens = gguf.get_array("tokenizer.ggml.tokens")
    if kind is None or (kind and tokens is None):
        return None
    bos, eos, adds_bos, adds_eos = DEFAULTS[kind]
    return Tongue(
        kind=kind,
        bos=gguf.get_int("tokenizer.ggml.bos_token_id", bos),
        eos=gguf.get_int("tokenizer.ggml.eos_token_id", eos),
        adds_bos=_flag(gguf, "tokenizer.ggml.add_bos_token", adds_bos),
        adds_eos=_flag(gguf, "tokenizer.ggml.add_eos_token", adds_eos),
        tokens=tokens.all_bytes() if kind and tokens is not None else (),
    )


def difference(ours: Tongue, theirs: Tongue) -> str:
    """Why tokens of a draft mean something else to its model; empty where they mean the same, as far as is known."""
    if not theirs.kind:
        return "it has no tokenizer"
    if ours.kind != theirs.kind:
        return f"its tokenizer is of another kind (llama_vocab_type {theirs.kind}, expected {ours.kind})"
    ends: tuple[Literal["bos", "eos"], ...] = ("bos", "eos")
    for end in ends:
        adds, draft_adds = getattr(ours, f"adds_{end}"), getattr(theirs, f"adds_{end}")
        token, draft_token = getattr(ours, end), getattr(theirs, end)
        name = end.upper()
        if None not in (adds, draft_adds) and adds != draft_adds:
            does = "adds" if draft_adds else "does not add"
            return f"its tokenizer {does} {name} to a text, and the model's {'does' if adds else 'does not'}"
        if adds and token != draft_token:
            return f"its {name} is token {draft_token}, and the model's {token}"
    n_ours, n_theirs = len(ours.tokens), len(theirs.tokens)
    if abs(n_ours - n_theirs) > SIZES_DIFFER_MAX:
        return f"it has {n_theirs:,} tokens, and the model {n_ours:,}: more than {SIZES_DIFFER_MAX} apart"
    for number, one, other in zip(count(), ours.tokens, theirs.tokens, strict=False):
        if number >= FIRST_COMPARED and one != other:
            return f"token {number:,} is {_shown(other)} to it, and {_shown(one)} to the model"
    return ""


def refusal(draft: object, target: object, differs: str) -> ValueError:
    """What is to be said of two files whose tokens differ."""
    return ValueError(f"{draft} cannot guess for {target}: {differs}; take a smaller model of the same family")


def check_tongues(draft: GGUFFile, target: GGUFFile) -> None:
    """Raise ValueError for a draft that reads text otherwise, if it runs by itself and the files say so.

    One of an unknown architecture is left to the prediction, which says so by its name; so is one without a tokenizer
    that only later builds know. Beside a model without a tokenizer nobody reads text.
    """
    known = RULES.get(draft.architecture)
    rule = known or LATER.get(draft.architecture)
    if draft.kind != "model" or rule is None or rule.is_draft:
        return
    ours, theirs = tongue_of(target), tongue_of(draft)
    if ours is None or theirs is None or not ours.kind or not (theirs.kind or known):
        return
    if differs := difference(ours, theirs):
        raise refusal(draft.location, target.location, differs)


def _flag(gguf: GGUFFile, key: str, default: bool | None) -> bool | None:
    return gguf.get_bool(key, default is True) if key in gguf.metadata else default


def _shown(text: bytes) -> str:
    return repr(text.decode("utf-8", "replace"))
