"""What each architecture keeps from token to token: caches, the rules that choose them, the table."""

from ggufphys.arch.caches import (
    BlockKV,
    BlockState,
    FullKV,
    KVCache,
    LayerCache,
    RecurrentState,
    WindowKV,
    row_bytes,
)
from ggufphys.arch.older import row_in
from ggufphys.arch.table import LATER, RULES, ArchRule
from ggufphys.builds.newer import known_since
from ggufphys.errors import UnsupportedError
from ggufphys.gguf import GGUFFile
from ggufphys.hparams.hparams import HParams, as_written


def rule_for(arch: str) -> ArchRule:
    """The architecture's row, as the newest recorded build has it; `row_in` makes an older one's of it.

    Raises:
        UnsupportedError: no row; nothing is guessed.
    """
    if not arch:
        raise UnsupportedError("the file has no general.architecture: not a model that llama.cpp can load")
    try:
        return RULES[arch] if arch in RULES else LATER[arch]
    except KeyError:
        raise UnsupportedError(f"{no_rule(arch)}: `ggufphys inspect` has an estimate from its tensors") from None


def no_rule(arch: str) -> str:
    """That an architecture has no row, and since when llama.cpp knows it; empty where it has one."""
    if arch in RULES or arch in LATER:
        return ""
    if not arch:
        return "the file names no architecture: expected a text, such as 'llama', as general.architecture"
    return f"architecture {arch!r} has no memory rule yet ({len(RULES)} architectures have one){known_since(arch)}"


def read_hparams(gguf: GGUFFile) -> HParams:
    """The hyperparameters of a model file, as its architecture takes them.

    Raises:
        GGUFError: a required key is missing, of the wrong type, or out of range.
        UnsupportedError: the file has no architecture, so it is not a model.
    """
    h = as_written(gguf)
    rule = RULES.get(h.arch) or LATER.get(h.arch)
    return h if rule is None else rule.adjust(h, gguf)


__all__ = [
    "RULES",
    "ArchRule",
    "BlockKV",
    "BlockState",
    "FullKV",
    "KVCache",
    "LayerCache",
    "RecurrentState",
    "WindowKV",
    "no_rule",
    "read_hparams",
    "row_bytes",
    "row_in",
    "rule_for",
]
