"""Which architectures that have no rule here does a newer llama.cpp know? Read off the libraries of recorded builds."""

from typing import Final

# By name: the last record that does not know it, and the first that does.
NEWER: Final[dict[str, tuple[int, int]]] = {
    "clef": (11352, 11391),
    "k2-horizon": (11413, 11548),
    "gemma-embedding2": (11413, 11548),
    "beam": (11548, 11739),
    "kolibri1": (11548, 11739),
    "maion-coder": (11548, 11739),
    "muse-spark": (11548, 11739),
    "vllm-decision2": (11548, 11739),
}


def known_since(arch: str) -> str:
    """Since when llama.cpp knows the name, as the end of a sentence; empty for names that no record knows."""
    if arch not in NEWER:
        return ""
    before, first = NEWER[arch]
    return f"; llama.cpp knows the name in b{first}, not yet in b{before}"
