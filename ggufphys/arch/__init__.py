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
from ggufphys.arch.table import RULES, ArchRule
from ggufphys.errors import UnsupportedError


def rule_for(arch: str) -> ArchRule:
    """The architecture's row.

    Raises:
        UnsupportedError: no row; nothing is guessed.
    """
    if not arch:
        raise UnsupportedError("the file has no general.architecture: not a model that llama.cpp can load")
    try:
        return RULES[arch]
    except KeyError:
        raise UnsupportedError(
            f"architecture {arch!r} has no memory rule yet, so its context cannot be predicted "
            f"({len(RULES)} architectures have one)"
        ) from None


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
    "row_bytes",
    "rule_for",
]
